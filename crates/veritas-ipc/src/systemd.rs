//! What a service manager is told, by systemd's protocol of `NOTIFY_SOCKET`, and how often it wants to hear.

use std::time::Duration;

use crate::Error;

/// Something to tell the service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notification<'a> {
    /// The daemon serves.
    Ready,
    /// The daemon reads its configuration again; systemd wants the moment, in microseconds of the monotonic clock, where
    /// the unit is of `Type=notify-reload`.
    Reloading {
        /// The moment.
        monotonic_usec: u64,
    },
    /// The daemon ends.
    Stopping,
    /// The daemon is alive.
    Watchdog,
    /// What the daemon is doing, in one line, for a person.
    Status(&'a str),
    /// The start or the stop will not take longer than this from now on.
    ExtendTimeout(Duration),
}

impl Notification<'_> {
    /// The lines of the protocol.
    fn render(&self, out: &mut String) {
        use std::fmt::Write as _;
        // Writing to a string does not fail.
        let _ = match self {
            Self::Ready => writeln!(out, "READY=1"),
            Self::Reloading { monotonic_usec } => {
                writeln!(out, "RELOADING=1\nMONOTONIC_USEC={monotonic_usec}")
            }
            Self::Stopping => writeln!(out, "STOPPING=1"),
            Self::Watchdog => writeln!(out, "WATCHDOG=1"),
            // A line end would begin another assignment.
            Self::Status(text) => writeln!(out, "STATUS={}", text.replace(['\n', '\r'], " ")),
            Self::ExtendTimeout(time) => writeln!(out, "EXTEND_TIMEOUT_USEC={}", time.as_micros()),
        };
    }
}

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    #[cfg(unix)]
    socket: Option<std::os::unix::net::UnixDatagram>,
}

impl Notifier {
    /// The service manager that `NOTIFY_SOCKET` names; without the variable, telling does nothing.
    ///
    /// # Errors
    /// If the variable names a socket that cannot be reached.
    pub fn from_env() -> Result<Self, Error> {
        match std::env::var_os("NOTIFY_SOCKET").filter(|value| !value.is_empty()) {
            Some(address) => Self::to(&address),
            None => Ok(Self::none()),
        }
    }

    /// Nobody.
    pub fn none() -> Self {
        Self {
            #[cfg(unix)]
            socket: None,
        }
    }

    /// The service manager at an absolute path, or at an abstract address that begins with `@`.
    ///
    /// # Errors
    /// If the address is neither, or nothing is there.
    #[cfg(unix)]
    pub fn to(address: &std::ffi::OsStr) -> Result<Self, Error> {
        use std::os::unix::net::UnixDatagram;
        let what = "reach the service manager at NOTIFY_SOCKET";
        let connect = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&unix_address(address)?)?;
            // A manager that does not read must not stop the daemon.
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = connect().map_err(|source: std::io::Error| Error::socket(what, source))?;
        Ok(Self { socket: Some(socket) })
    }

    /// The service manager at an address.
    ///
    /// # Errors
    /// Always: there is none on this system.
    #[cfg(not(unix))]
    pub fn to(_address: &std::ffi::OsStr) -> Result<Self, Error> {
        Err(Error::Unsupported { what: "telling a service manager" })
    }

    /// Whether there is a service manager to tell.
    pub fn is_connected(&self) -> bool {
        #[cfg(unix)]
        return self.socket.is_some();
        #[cfg(not(unix))]
        false
    }

    /// Tells the service manager, in one message. Whether somebody was told is returned.
    ///
    /// # Errors
    /// If the message could not be delivered. A daemon logs that and goes on.
    pub fn notify(&self, notifications: &[Notification<'_>]) -> Result<bool, Error> {
        let mut text = String::new();
        notifications.iter().for_each(|notification| notification.render(&mut text));
        self.send(&text)
    }

    #[cfg(unix)]
    fn send(&self, text: &str) -> Result<bool, Error> {
        let Some(socket) = &self.socket else { return Ok(false) };
        let what = "tell the service manager";
        if text.len() > crate::limits::NOTIFY_BYTES_MAX {
            let reason = std::io::Error::other(format!("the message has {} bytes", text.len()));
            return Err(Error::socket(what, reason));
        }
        socket.send(text.as_bytes()).map(|_| true).map_err(|source| Error::socket(what, source))
    }

    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps, reason = "the signature is that of the Unix twin")]
    fn send(&self, _text: &str) -> Result<bool, Error> {
        Ok(false)
    }
}

#[cfg(unix)]
fn unix_address(address: &std::ffi::OsStr) -> std::io::Result<std::os::unix::net::SocketAddr> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;
    match address.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(address),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)
        }
        _ => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            format!("{} is neither an absolute path nor an abstract address", address.display()),
        )),
    }
}

/// How often the service manager wants to hear that this process is alive; `None` if it does not ask.
///
/// `WATCHDOG_USEC` says it, for the process that `WATCHDOG_PID` names. Tell it twice as often.
pub fn watchdog_interval() -> Option<Duration> {
    let variable = |name: &str| std::env::var(name).ok();
    interval_of(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

fn interval_of(usec: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    let usec = usec?.parse::<u64>().ok().filter(|usec| *usec > 0)?;
    match pid.filter(|pid| !pid.is_empty()) {
        Some(pid) if pid.parse() != Ok(own_pid) => None,
        _ => Some(Duration::from_micros(usec)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval_of(Some("1000000"), None, 5), second);
        assert_eq!(interval_of(Some("1000000"), Some(""), 5), second);
        assert_eq!(interval_of(Some("1000000"), Some("5"), 5), second);
        assert_eq!(interval_of(Some("1000000"), Some("6"), 5), None);
        assert_eq!(interval_of(Some("1000000"), Some("x"), 5), None);
        for usec in [None, Some(""), Some("0"), Some("-1"), Some("soon"), Some("99999999999999999999")] {
            assert_eq!(interval_of(usec, None, 5), None, "{usec:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn messages_arrive_at_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        expect_messages(&Notifier::to(path.as_os_str()).unwrap(), &manager);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn messages_arrive_at_an_abstract_address() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixDatagram};
        let name = format!("veritas-ipc-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        expect_messages(&Notifier::to(format!("@{name}").as_ref()).unwrap(), &manager);
    }

    #[cfg(unix)]
    fn expect_messages(notifier: &Notifier, manager: &std::os::unix::net::UnixDatagram) {
        use Notification as N;
        let cases: [(&[N<'_>], &str); 6] = [
            (&[N::Ready, N::Status("serving")], "READY=1\nSTATUS=serving\n"),
            (&[N::Watchdog], "WATCHDOG=1\n"),
            (&[N::Status("a\nREADY=1")], "STATUS=a READY=1\n"),
            (&[N::Reloading { monotonic_usec: 7 }], "RELOADING=1\nMONOTONIC_USEC=7\n"),
            (&[N::Stopping], "STOPPING=1\n"),
            (&[N::ExtendTimeout(Duration::from_millis(2))], "EXTEND_TIMEOUT_USEC=2000\n"),
        ];
        let mut buffer = [0; 256];
        for (notifications, expected) in cases {
            assert!(notifier.notify(notifications).unwrap());
            let n = manager.recv(&mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..n]).unwrap(), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_manager_that_is_not_there_is_an_error_and_none_is_not() {
        assert!(!Notifier::none().notify(&[Notification::Ready]).unwrap());
        assert!(!Notifier::none().is_connected());
        for address in ["/nonexistent/notify", "relative", "", "vsock:1:2"] {
            assert!(Notifier::to(address.as_ref()).is_err(), "{address:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_manager_that_does_not_read_does_not_stop_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str()).unwrap();
        let mut outcomes = (0..100_000).map(|_| notifier.notify(&[Notification::Watchdog]));
        assert!(
            outcomes.any(|outcome| outcome.is_err()),
            "the queue is full at some time, and that is an error"
        );
    }
}
