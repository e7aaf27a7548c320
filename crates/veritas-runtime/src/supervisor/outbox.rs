//! Bytes that wait for a client.

use std::io;

/// Bytes of which the front is not worth moving, and which an outbox keeps room for when it is empty.
const KEPT_BYTES: usize = 64 << 10;

/// What came of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing is left.
    All,
    /// The kernel takes no more for now.
    Full,
    /// The client is gone.
    Gone,
}

/// Frames for a client, of which the kernel has taken a part.
#[derive(Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// Bytes at the front that have been written.
    written: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where frames are appended. What was written is let go of first, so that an outbox which is never empty does not
    /// grow; no byte is moved more than once on average.
    pub(crate) fn frames(&mut self) -> &mut Vec<u8> {
        if self.written >= KEPT_BYTES && self.written >= self.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        &mut self.bytes
    }

    /// Takes what waits.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..std::mem::take(&mut self.written));
        bytes
    }

    /// Writes until nothing is left or the kernel takes no more.
    pub(crate) fn write(&mut self, write: &mut dyn FnMut(&[u8]) -> io::Result<usize>) -> Written {
        while !self.is_empty() {
            match write(&self.bytes[self.written..]) {
                Ok(0) => return Written::Gone,
                Ok(n) => self.written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::Full,
                Err(_) => return Written::Gone,
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.written = 0;
        Written::All
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a kernel takes at a time, the bytes leave once and in order, and an outbox that is never empty
        /// stays about as small as what waits in it.
        #[test]
        fn bytes_leave_once_and_in_order(
            steps in prop::collection::vec((0_usize..100_000, 0_usize..120_000), 1..40),
        ) {
            let (mut outbox, mut sent, mut received) = (Outbox::default(), Vec::new(), Vec::new());
            for (n_more, room) in steps {
                let more = (0..n_more).map(|i| (sent.len() + i) as u8).collect::<Vec<_>>();
                outbox.frames().extend_from_slice(&more);
                sent.extend_from_slice(&more);
                let mut room = room;
                let outcome = outbox.write(&mut |bytes| {
                    let n = bytes.len().min(room).min(50_000);
                    room -= n;
                    received.extend_from_slice(&bytes[..n]);
                    if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
                });
                prop_assert_eq!(outcome == Written::All, outbox.is_empty());
                prop_assert_eq!(received.len() + outbox.len(), sent.len());
                outbox.frames();
                prop_assert!(outbox.bytes.len() <= 2 * outbox.len() + KEPT_BYTES);
            }
            received.extend(outbox.take());
            prop_assert!(outbox.is_empty() && received == sent);
        }
    }

    #[test]
    fn a_client_that_is_gone_is_told_apart_from_one_that_is_slow() {
        let mut outbox = Outbox::default();
        outbox.frames().extend_from_slice(b"abc");
        assert_eq!(outbox.write(&mut |_| Err(io::ErrorKind::BrokenPipe.into())), Written::Gone);
        assert_eq!(outbox.write(&mut |_| Ok(0)), Written::Gone);
        let mut n_calls = 0;
        let outcome = outbox.write(&mut |_| {
            n_calls += 1;
            match n_calls {
                1 => Err(io::ErrorKind::Interrupted.into()),
                2 => Ok(1),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        assert_eq!((outcome, outbox.take()), (Written::Full, b"bc".to_vec()));
    }
}
