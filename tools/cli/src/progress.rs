//! A bar for long work: on a terminal only, with rate and time left.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use myelin_feed::Progress;

/// Shown on stderr, or nowhere.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A bar if somebody looks; `bytes` is how long the input is, where that is known.
    pub(crate) fn new(shown: bool, bytes: Option<u64>) -> Self {
        let bar = shown.then(|| {
            let (bar, form) = match bytes {
                Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {percent:>3}%  {msg}  {eta} left"),
                None => (ProgressBar::no_length(), "{spinner} {bytes}  {msg}  {elapsed}"),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            // A form that does not parse leaves the default one.
            if let Ok(style) = ProgressStyle::with_template(form) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar }
    }

    /// So far.
    pub(crate) fn at(&self, read: &Progress, seconds: f64) {
        if let Some(bar) = &self.bar {
            bar.set_position(read.bytes_read);
            let rate = if seconds > 0.0 { read.rows as f64 / seconds } else { 0.0 };
            bar.set_message(format!("{} rows  {rate:.0}/s", read.rows));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
