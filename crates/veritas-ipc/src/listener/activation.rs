//! Sockets that the service manager opened: systemd's protocol of `LISTEN_PID` and `LISTEN_FDS`.

use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

use crate::Error;
use crate::limits::ACTIVATION_FDS_MAX;

/// The socket that was handed over, if one was handed to this process.
pub(super) fn take() -> Result<Option<UnixListener>, Error> {
    let invalid = |reason: String| Error::Activation { reason };
    let variable = |name: &str| std::env::var(name).ok();
    let is_for_us = variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let Some(count) = variable("LISTEN_FDS") else { return Ok(None) };
    if is_for_us {
        // It is checked here, before the crate makes a list as long as the variable says.
        match count.parse::<usize>() {
            Ok(0..=ACTIVATION_FDS_MAX) => {}
            Ok(n) => return Err(invalid(format!("there are {n} descriptors, but one socket is served"))),
            Err(_) => return Err(invalid(format!("LISTEN_FDS is {count:?}, not a number"))),
        }
    } else if count.parse::<usize>().is_ok_and(|n| n > ACTIVATION_FDS_MAX) {
        // Meant for another process, and not ours to judge.
        return Ok(None);
    }
    let mut fds = ListenFd::from_env();
    if !is_for_us {
        return Ok(None);
    }
    let socket = fds.take_unix_listener(0).map_err(|error| invalid(error.to_string()))?;
    let Some(socket) = socket else { return Ok(None) };
    #[cfg(not(target_vendor = "apple"))]
    match rustix::net::sockopt::socket_acceptconn(&socket) {
        Ok(true) => {}
        Ok(false) => {
            return Err(invalid("it does not listen; in the unit, Accept= must be no".to_owned()));
        }
        Err(source) => return Err(invalid(source.to_string())),
    }
    Ok(Some(socket))
}
