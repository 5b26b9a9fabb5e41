#!/usr/bin/env python3
"""An inventory in an SQLite file.

inventory.py DATABASE migrate          apply the migrations that are missing, each as one transaction
inventory.py DATABASE version          print the newest migration that was applied
inventory.py DATABASE back-up FILE     write a consistent copy, even while others write
inventory.py DATABASE add NAME COUNT   add COUNT pieces of NAME
inventory.py DATABASE count NAME       print how many pieces of NAME there are
inventory.py DATABASE check            write and read an item, and leave no trace
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

MIGRATIONS = Path(__file__).resolve().parent / "migrations"


def applied(database):
    database.execute("CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY)")
    return {name for (name,) in database.execute("SELECT name FROM migration")}


def migrate(database):
    done = applied(database)
    for file in sorted(MIGRATIONS.glob("*.sql")):
        if file.stem in done:
            continue
        record = f"INSERT INTO migration VALUES ('{file.stem}');"
        try:
            database.executescript(f"BEGIN IMMEDIATE;\n{file.read_text(encoding='utf-8')}\n{record}\nCOMMIT;")
        except sqlite3.Error as error:
            sys.exit(f"{file}: {error}; this migration was not applied, those before it were")
        print(f"applied {file.stem}")


def version(database):
    print(max(applied(database), default="none"))


def back_up(database, target):
    with closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def add(database, name, count):
    database.execute(
        "INSERT INTO item (name, pieces) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET pieces = pieces + excluded.pieces",
        (name, int(count)),
    )


def pieces(database, name):
    row = database.execute("SELECT pieces FROM item WHERE name = ?", (name,)).fetchone()
    return row[0] if row else 0


def count(database, name):
    print(pieces(database, name))


def check(database):
    database.execute("BEGIN IMMEDIATE")
    before = pieces(database, "deployment check")
    add(database, "deployment check", 2)
    after = pieces(database, "deployment check")
    database.execute("ROLLBACK")
    if after != before + 2:
        sys.exit(f"wrote {before + 2} pieces and read {after}")


COMMANDS = {"migrate": migrate, "version": version, "back-up": back_up, "add": add, "count": count, "check": check}


def main():
    path, command, *arguments = sys.argv[1:]
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
        COMMANDS[command](database, *arguments)


main()
