//! The client-side verbs of the `myelin` command line.
