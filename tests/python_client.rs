//! `net/README.md` is enough: a client in Python that was written from it alone speaks to a real node, and the questions
//! it prints as bytes are those of `src/reflex`. Skipped, and saying so, where there is no python3.

use crate::node::Setup;
use myelin::reflex::{Scope, Spec};
use std::path::Path;
use std::process::Command;

#[test]
fn a_client_that_was_written_from_the_page_alone_is_understood() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3 on this machine");
        return;
    }
    let node = Setup::fresh().start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/check.py");
    let output = Command::new("python3").arg("-B").arg(script).arg(node.listen.to_string()).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{complained}");
    assert!(said.ends_with("all that was checked holds\n"), "{said}");
}

#[test]
fn the_questions_that_the_page_prints_as_bytes_are_those_of_the_reflexes() {
    let page = include_str!("../net/README.md");
    let (_, table) = page.split_once("| as people write it | bytes |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut compared = 0;
    for row in rows {
        let [text, hex]: [&str; 2] = row
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let drawn: Vec<u8> = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let mut encoded = Vec::new();
        match text.parse::<Spec>() {
            Ok(spec) => spec.encode(&mut encoded),
            Err(_) => text.parse::<Scope>().unwrap().encode(&mut encoded),
        }
        assert_eq!(encoded, drawn, "{text}");
        compared += 1;
    }
    assert!(compared >= 5, "the page prints only {compared} questions");
}
