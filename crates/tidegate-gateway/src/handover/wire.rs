//! How sockets are given to another process: one message over a Unix socket, names and file descriptors in one order.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    cmsg_space,
    io::{FdFlags, fcntl_setfd},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};
use socket2::SockRef;

use super::Role;

/// What a message begins with; another version would be another language.
const GREETING: &str = "tidegate sockets 1";
/// Most bytes of a message.
const MOST_BYTES: usize = 1024;
/// Most sockets in a message; a later version may pass more than this one knows.
const MOST_SOCKETS: usize = 16;

/// Gives another process handles of these sockets.
///
/// # Errors
/// What the system says; `WouldBlock` does not occur on a channel that nothing was written to.
pub(super) fn send(channel: &UnixStream, sockets: &[(Role, TcpListener)]) -> io::Result<()> {
    let mut text = format!("{GREETING}\n");
    for (role, _) in sockets {
        text.push_str(role.name());
        text.push('\n');
    }
    text.push('\n');
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("there are more sockets than fit into a message"));
    }
    let sent = sendmsg(channel, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::empty())?;
    if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Takes what [`send`] gave. Names that this version does not know are left out, and their sockets closed.
///
/// # Errors
/// When nothing comes in time, the channel ends, or what comes is no such message.
pub(super) fn receive(channel: &UnixStream) -> io::Result<Vec<(Role, TcpListener)>> {
    let mut text = Vec::new();
    let mut descriptors = Vec::new();
    while !text.ends_with(b"\n\n") {
        let mut part = [0; MOST_BYTES];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(channel, &mut [IoSliceMut::new(&mut part)], &mut control, RecvFlags::empty())?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        text.extend_from_slice(&part[..got.bytes]);
        if got.bytes == 0 || text.len() > MOST_BYTES {
            return Err(invalid("it ends in the middle of its message"));
        }
    }
    let text = String::from_utf8(text).map_err(|_| invalid("its message is no text"))?;
    let mut names = text.trim_end().lines();
    if names.next() != Some(GREETING) {
        return Err(invalid("it speaks another version of the handover"));
    }
    let names: Vec<&str> = names.collect();
    if names.len() != descriptors.len() {
        return Err(invalid("it names more or fewer sockets than it passes"));
    }
    let mut sockets = Vec::new();
    for (name, descriptor) in names.into_iter().zip(descriptors) {
        if let Some(role) = Role::ALL.into_iter().find(|role| role.name() == name) {
            sockets.push((role, listening(descriptor)?));
        }
    }
    Ok(sockets)
}

/// A descriptor as the listening socket that it must be.
fn listening(descriptor: OwnedFd) -> io::Result<TcpListener> {
    // No process that is started from here inherits it by accident.
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    let socket = TcpListener::from(descriptor);
    if SockRef::from(&socket).is_listener()? {
        Ok(socket)
    } else {
        Err(invalid("it passes a socket that does not listen"))
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
