//! `homa-interop hostile`.

use homa_interop::hostile::{Figures, RunError};

use crate::arguments::HostileOptions;
use crate::{FAILED, GOOD, NOT_STARTED};

/// Runs the attacks and prints the figures of each as it ends. Returns the exit status.
pub(crate) async fn run(options: &HostileOptions) -> u8 {
    let figures = match options.plan.run(|figures| println!("{figures}\n")).await {
        Ok(figures) => figures,
        Err(error) => {
            eprintln!("homa-interop: {error}");
            return match error {
                RunError::Unavailable(_) => NOT_STARTED,
                _ => FAILED,
            };
        }
    };
    let faulty = figures.iter().filter(|run| !run.faults.is_empty()).count();
    println!("{} attacks, {faulty} with faults", figures.len());
    if let Err(error) = write_json(options, &figures) {
        eprintln!("homa-interop: cannot write the figures: {error}");
        return FAILED;
    }
    if faulty == 0 { GOOD } else { FAILED }
}

fn write_json(options: &HostileOptions, figures: &[Figures]) -> std::io::Result<()> {
    let Some(file) = &options.json else {
        return Ok(());
    };
    let text = serde_json::to_string_pretty(figures)?;
    std::fs::write(file, text + "\n")
}
