//! The program `crosvm`, whose parts are in the library beside it.

fn main() -> std::process::ExitCode {
    crosvm::main()
}
