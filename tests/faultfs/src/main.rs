//! `myelin-faultfs DIR SOCKET`: the disk at DIR, controlled through SOCKET, until its input ends or it is told `quit`.
//! `myelin-faultfs SOCKET COMMAND..` with a socket that exists: sends one command and prints the answer.
//!
//! For trying by hand, and for tests that are not written in Rust. Deliberately absent: staying in the background.

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use std::io::BufRead;
    use std::os::unix::fs::FileTypeExt;
    use std::path::Path;
    use std::sync::Arc;

    use anyhow::{Context, bail};
    use myelin_faultfs::{Client, FaultFs, unavailable};

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_socket = |path: &String| std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    match arguments.as_slice() {
        [socket, command @ ..] if is_socket(socket) && !command.is_empty() => {
            println!("{}", Client::connect(Path::new(socket))?.ask(&command.join(" "))?);
        }
        [folder, socket] => {
            if let Some(reason) = unavailable() {
                bail!("no file system can be mounted here: {reason}");
            }
            let disk =
                Arc::new(FaultFs::mount(Path::new(folder)).with_context(|| format!("cannot mount at {folder}"))?);
            disk.listen(Path::new(socket)).with_context(|| format!("cannot listen at {socket}"))?;
            println!("mounted at {}", disk.path().display());
            std::io::stdin().lock().lines().map_while(Result::ok).find(|line| line.trim() == "quit");
            std::fs::remove_file(socket)?;
        }
        _ => bail!("usage: myelin-faultfs DIR SOCKET, or myelin-faultfs SOCKET COMMAND.."),
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("myelin-faultfs needs Linux");
    std::process::exit(7);
}
