//! The connections of a port, as the kernel lists them (proc_pid_net(5)).

use std::fs::File;
use std::io::{BufRead as _, BufReader};

/// The state of an established connection.
const ESTABLISHED: &str = "01";

/// The state of a socket that listens.
const LISTEN: &str = "0A";

/// The number of established connections to a TCP port of this host. A list that the kernel does
/// not offer has none.
pub(super) fn established(port: u16) -> u64 {
    sockets(port, ESTABLISHED)
}

/// Whether somebody listens on a TCP port of this host, at any address.
pub fn is_listened_on(port: u16) -> bool {
    sockets(port, LISTEN) > 0
}

fn sockets(port: u16, state: &str) -> u64 {
    let count = |list| {
        let Ok(list) = File::open(list) else { return 0 };
        let lines = BufReader::new(list).lines().map_while(Result::ok);
        lines.filter(|line| is_in(state, line, port)).count() as u64
    };
    count("/proc/net/tcp") + count("/proc/net/tcp6")
}

/// Whether a line is a socket in `state` whose local port is `port`.
fn is_in(state: &str, line: &str, port: u16) -> bool {
    let mut fields = line.split_whitespace().skip(1);
    let (local, found) = (fields.next(), fields.nth(1));
    let of_port = local
        .and_then(|local| local.rsplit_once(':'))
        .is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
    of_port && found == Some(state)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_of_a_port_are_counted_until_they_are_closed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                // Without IPv6.
                continue;
            };
            let address = listener.local_addr().unwrap();
            assert!(is_listened_on(address.port()));
            assert_eq!(established(address.port()), 0);
            let client = TcpStream::connect(address).unwrap();
            let (server, _) = listener.accept().unwrap();
            assert_eq!(established(address.port()), 1);
            drop((client, server));
            assert_eq!(established(address.port()), 0);
        }
    }
}
