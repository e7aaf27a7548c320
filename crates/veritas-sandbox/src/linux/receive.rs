//! Reading from the connection between a supervisor and a worker.

use std::io::{self, Read};

use rustix::event::{PollFd, PollFlags, poll};

use crate::Socket;

/// Reads what there is, waiting for it if need be. 0 is the end. One thread at a time may read from a socket.
///
/// It waits in `poll`, which asks for bytes to read. Who waits in `read` is woken for nothing, too, whenever the other
/// side has read what was written to it: a worker that streams once for each token.
///
/// # Errors
/// What `poll` or `read` answers; an interruption by a signal is none.
pub fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut socket = socket;
        match socket.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bytes_come_as_they_were_sent_and_the_end_is_zero() {
        let (near, mut far) = Socket::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            let mut piece = [0; 7];
            loop {
                match receive(&near, &mut piece).unwrap() {
                    0 => break received,
                    n => received.extend_from_slice(&piece[..n]),
                }
            }
        });
        let sent = (0..=255).cycle().take(100_000).collect::<Vec<u8>>();
        far.write_all(&sent).unwrap();
        drop(far);
        assert!(reader.join().unwrap() == sent);
    }
}
