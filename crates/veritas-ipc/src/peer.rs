//! Who is at the other end of a connection, as the kernel says.

use std::collections::BTreeSet;

use crate::{Connection, Error};

/// The process that connected, at the moment when it did.
///
/// The kernel vouches for it: a client can neither choose nor forge it. The process may have handed the connection to
/// another since; what it does with it, it does in the name of who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group. Groups that it belongs to besides are not told.
    pub gid: u32,
    /// Its number, for logs alone: it may name another process by now. `None` where the system does not tell it, or
    /// where the process is in another namespace.
    pub pid: Option<u32>,
}

impl Peer {
    /// The process at the other end of `connection`.
    ///
    /// # Errors
    /// If the kernel does not say.
    #[cfg(unix)]
    pub fn of(connection: &Connection) -> Result<Self, Error> {
        let cred = connection.peer_cred().map_err(|source| Error::socket("ask who has connected", source))?;
        let pid = cred.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        Ok(Self { uid: cred.uid(), gid: cred.gid(), pid })
    }

    /// The process at the other end of `connection`.
    ///
    /// # Errors
    /// Always: this system does not say.
    #[cfg(not(unix))]
    pub fn of(_connection: &Connection) -> Result<Self, Error> {
        Err(Error::Unsupported { what: "asking who has connected" })
    }
}

/// Users and groups that may use a daemon. Nobody is allowed who is not named, root included.
///
/// A peer's group is its effective one. Whoever belongs to a group besides cannot be told from strangers here: for them
/// the mode of the socket ([`crate::SocketMode::Group`]) decides, and the list must name their users.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AllowList {
    /// Users.
    pub uids: BTreeSet<u32>,
    /// Groups.
    pub gids: BTreeSet<u32>,
}

impl AllowList {
    /// The user that this process runs as, and nobody else.
    #[cfg(unix)]
    pub fn own_user() -> Self {
        Self { uids: BTreeSet::from([rustix::process::geteuid().as_raw()]), gids: BTreeSet::new() }
    }

    /// The user that this process runs as: nobody on this system, which has no numbers for users.
    #[cfg(not(unix))]
    pub fn own_user() -> Self {
        Self::default()
    }

    /// Whether the list names the peer's user or its group.
    pub fn allows(&self, peer: &Peer) -> bool {
        self.uids.contains(&peer.uid) || self.gids.contains(&peer.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_are_named_are_allowed() {
        let peer = |uid, gid| Peer { uid, gid, pid: None };
        let list = AllowList { uids: [1000].into(), gids: [50].into() };
        assert!(list.allows(&peer(1000, 1)));
        assert!(list.allows(&peer(1, 50)));
        assert!(!list.allows(&peer(0, 0)), "root is not named");
        assert!(!list.allows(&peer(50, 1000)), "a user's number is not a group's");
        assert!(!AllowList::default().allows(&peer(0, 0)));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_kernel_names_this_process_as_its_own_peer() {
        let (near, _far) = Connection::pair().unwrap();
        let peer = Peer::of(&near).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
        assert_eq!(peer.pid, Some(std::process::id()));
        assert!(AllowList::own_user().allows(&peer));
    }
}
