//! How many files the process may hold open: each connection takes one, towards clients and towards upstreams.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft bound on open files to the hard one and says what it is now; none means unlimited.
///
/// A service manager sets the hard one: `LimitNOFILE=` in systemd, `ulimit -Hn` in a shell.
///
/// # Errors
/// When the system refuses.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let bound = getrlimit(Resource::Nofile);
    if bound.current != bound.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: bound.maximum, maximum: bound.maximum })?;
    }
    Ok(bound.maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_bound_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let low = hard.map_or(512, |hard| hard.min(512));
        setrlimit(Resource::Nofile, Rlimit { current: Some(low), maximum: hard }).unwrap();
        assert_eq!(raise_open_files().unwrap(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
