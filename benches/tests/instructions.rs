//! `homa-bench instructions` in small: its figures are plausible, and repeat.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::process::Command;

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_homa-bench");
/// Two runs may differ by this share.
const SPREAD: f64 = 0.05;

/// One run with few calls; `None`, with a message, where counting is not possible.
fn count(name: &str) -> Option<Value> {
    let file = std::env::temp_dir().join(format!("homa-bench-{}-{name}.json", std::process::id()));
    let output = Command::new(PROGRAM)
        .args(["instructions", "--calls", "400", "--json"])
        .arg(&file)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("cannot count instructions here") {
        eprintln!("SKIPPED {name}: {}", errors.trim());
        return None;
    }
    assert!(output.status.success(), "{errors}");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

fn number(row: &Value, side: &str, what: &str) -> f64 {
    row[side][what].as_f64().unwrap()
}

#[test]
fn figures_are_plausible_and_repeat() {
    let Some(first) = count("figures_are_plausible_and_repeat") else {
        return;
    };
    let second = count("figures_are_plausible_and_repeat").unwrap();
    let rows = first.as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for (row, again) in rows.iter().zip(second.as_array().unwrap()) {
        for side in ["client", "server"] {
            let (one, two) = (
                number(row, side, "instructions"),
                number(again, side, "instructions"),
            );
            assert!((1_000.0..1_000_000.0).contains(&one), "{row}");
            assert!((one / two - 1.0).abs() < SPREAD, "{row}\n{again}");
            let allocations = number(row, side, "allocations");
            assert!((0.5..100.0).contains(&allocations), "{row}");
        }
    }
    // The layers above cost something, on either side.
    for (rpc, transport) in [(0, 2), (1, 3)] {
        for side in ["client", "server"] {
            let of = |row: usize| number(&rows[row], side, "instructions");
            assert!(of(rpc) > of(transport), "{first}");
        }
    }
}
