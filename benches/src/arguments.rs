//! Values that several command lines have.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Reads a number of that range; for clap.
pub(crate) fn within<T: FromStr + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync
where
    RangeInclusive<T>: Clone + Send + Sync,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("expected {} to {}", range.start(), range.end()))
    }
}

/// In tests: reads a command's arguments without the program's name; errors are what a user sees.
#[cfg(test)]
pub(crate) fn parse<A: clap::Args>(line: &str) -> Result<A, String> {
    #[derive(clap::Parser)]
    #[command(args_override_self = true)]
    struct Line<A: clap::Args> {
        #[command(flatten)]
        arguments: A,
    }
    let words = std::iter::once("test").chain(line.split_whitespace());
    let parsed = <Line<A> as clap::Parser>::try_parse_from(words);
    parsed
        .map(|line| line.arguments)
        .map_err(|error| error.to_string())
}
