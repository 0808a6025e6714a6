//! The one binary: everything is in the library, where it can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    portreeve::cli::run(std::env::args_os())
}
