fn main() -> std::process::ExitCode {
    crossover::cli::main()
}
