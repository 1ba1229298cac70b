//! Servers that refuse root: they are run by the user whom their package has made. Who is not root runs them as himself.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A command that runs the program as this user. The kernel forgets whose death a process wants to share when its user changes,
/// so that is said again.
pub(super) fn command(account: Option<&str>, program: &Path) -> Command {
    let Some(account) = account.filter(|_| is_root()) else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={account}")).arg(format!("--regid={account}"));
    command.args(["--clear-groups", "--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Gives the folder to the user, who must also be able to reach it.
pub(super) fn give(account: Option<&str>, folder: &Path) -> io::Result<()> {
    let Some(account) = account.filter(|_| is_root()) else { return Ok(()) };
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    let users = fs::read_to_string("/etc/passwd")?;
    let own = users.lines().find_map(|line| line.strip_prefix(account)?.strip_prefix(':'));
    let mut numbers = own.unwrap_or_default().split(':').skip(1).map_while(|number| number.parse().ok());
    let (Some(user), Some(group)) = (numbers.next(), numbers.next()) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no user {account}")));
    };
    chown(folder, Some(user), Some(group))
}
