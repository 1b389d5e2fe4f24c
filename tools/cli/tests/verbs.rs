//! Verbs as they are typed, where no node is needed: what they print, and how they end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use clap::{CommandFactory, Parser};
use myelin_cli::{Command, Exit, House, Io, execute};

#[derive(Parser)]
#[command(name = "myelin")]
struct Arguments {
    #[command(subcommand)]
    verb: Command,
}

const HOUSE: House = House {
    command: Arguments::command,
    registration: |_, spec, _| Err(format!("'{spec}' is no question")),
    asked: |_| None,
    firing_kind: |_| None,
};

struct Ended {
    exit: Exit,
    out: String,
    said: String,
}

/// Runs `myelin` with these words.
fn run(words: &str) -> Ended {
    let arguments = Arguments::try_parse_from(std::iter::once("myelin").chain(words.split_whitespace())).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (exit, said) = {
        let mut io = Io {
            out: Box::new(&mut out),
            err: Box::new(&mut err),
            out_is_stdout: false,
            out_is_terminal: false,
            err_is_terminal: false,
        };
        match runtime.block_on(execute(arguments.verb, &HOUSE, &mut io)) {
            Ok(exit) => (exit, String::new()),
            Err(failure) => (failure.exit(), failure.to_string()),
        }
    };
    Ended { exit, out: String::from_utf8(out).unwrap(), said }
}

#[test]
fn explain_answers_by_number_and_name_in_every_form() {
    let table = run("explain busy");
    assert_eq!(table.exit, Exit::Ok);
    assert!(table.out.starts_with("busy (code 40, HTTP 429)\n  "), "{}", table.out);
    let json = run("explain 40 -o json").out;
    assert!(json.starts_with("{\"code\":40,\"name\":\"busy\",\"http_status\":429,\"meaning\":\""), "{json}");
    assert!(run("explain -o csv").out.lines().count() > 30);
    let unknown = run("explain idconflict-");
    assert_eq!(unknown.exit, Exit::Ok, "spelling is forgiven");
    let unknown = run("explain idconf");
    assert_eq!(
        (unknown.exit, unknown.said.as_str()),
        (Exit::Negative, "there is no code 'idconf': did you mean id_conflict?")
    );
}

#[test]
fn completions_know_the_verbs() {
    assert!(run("completions bash").out.contains("ingest"));
}

#[test]
fn what_cannot_be_understood_ends_with_usage_before_anybody_is_asked() {
    for words in ["count tick/nope", "watch nonsense", "ingest /no/such/file"] {
        assert_eq!(run(words).exit, Exit::Usage, "{words}");
    }
}

#[test]
fn nobody_there_ends_with_three() {
    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for verb in ["count tick/id", "market list", "status", "vwap"] {
        let ended = run(&format!("{verb} --server {free}"));
        assert_eq!(ended.exit, Exit::Unreachable, "{verb}");
        assert!(ended.said.contains(&free.to_string()), "{}", ended.said);
    }
}

#[test]
fn bad_words_are_refused_by_the_command_line_itself() {
    for words in [
        "count",
        "count tick/id --as-of yesterday",
        "bars --market m --width 60",
        "bars --market m --from 1723075200",
        "ingest f --speed fast",
        "ingest f --batch 0",
        "watch",
        "watch above 5 --market m --all",
    ] {
        let parsed = Arguments::try_parse_from(std::iter::once("myelin").chain(words.split_whitespace()));
        assert_eq!(parsed.err().map(|error| error.exit_code()), Some(2), "{words}");
    }
    assert!(Arguments::try_parse_from(["myelin", "watch", "spread", "A", "over", "B", "-5"]).is_ok());
}
