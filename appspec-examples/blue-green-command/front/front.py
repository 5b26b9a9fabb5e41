"""A front door: relays connections to 127.0.0.1 at the port that the file TARGET contains. It stands for your own balancer.

front.py ADDRESS PORT TARGET. The file is read for each connection, so a changed file moves new connections only.
"""

import asyncio
import sys
from pathlib import Path


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def main():
    address, port, target = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])

    async def relay(reader, writer):
        try:
            slot_reader, slot_writer = await asyncio.open_connection("127.0.0.1", int(target.read_text()))
        except (OSError, ValueError):
            return writer.close()
        await asyncio.gather(pump(reader, slot_writer), pump(slot_reader, writer))
        slot_writer.close()
        writer.close()

    async with await asyncio.start_server(relay, address, port, backlog=1024) as server:
        await server.serve_forever()


asyncio.run(main())
