//! Places on the earth: those that the example `routeguide` knows, and how far they are apart.

use crate::routeguide::{Feature, Point, Rectangle};

const FIRST_WORDS: [&str; 10] = [
    "Upper", "Lower", "Old", "New", "Great", "Little", "North", "South", "East", "West",
];
const SECOND_WORDS: [&str; 10] = [
    "Mill", "Ford", "Bridge", "Wood", "Hill", "Lake", "Field", "Church", "Stone", "Market",
];

/// The south-western one of all places.
pub const CORNER: Point = Point {
    latitude: 400_000_000,
    longitude: -750_000_000,
};
/// From one place to the next, northwards and eastwards: a tenth of a degree.
pub const STEP: i32 = 1_000_000;

/// Points are in units of this fraction of a degree.
const PER_DEGREE: f64 = 1e7;
const EARTH_RADIUS_METRES: f64 = 6_371_000.0;

/// A hundred places, in ten rows of ten.
#[must_use]
pub fn all() -> Vec<Feature> {
    let rows = (CORNER.latitude..).step_by(STEP as usize).zip(FIRST_WORDS);
    let row = |(latitude, first): (i32, &'static str)| {
        let columns = (CORNER.longitude..)
            .step_by(STEP as usize)
            .zip(SECOND_WORDS);
        columns.map(move |(longitude, second)| Feature {
            name: format!("{first} {second}"),
            location: Some(Point {
                latitude,
                longitude,
            }),
        })
    };
    rows.flat_map(row).collect()
}

/// Whether there is such a point.
#[must_use]
pub const fn is_on_earth(point: Point) -> bool {
    point.latitude.unsigned_abs() <= 900_000_000 && point.longitude.unsigned_abs() <= 1_800_000_000
}

/// Whether the point is in the rectangle or on its border.
#[must_use]
pub fn is_in(point: Point, rectangle: Rectangle) -> bool {
    let lo = rectangle.lo.unwrap_or_default();
    let hi = rectangle.hi.unwrap_or_default();
    let between = |value: i32, a: i32, b: i32| (a.min(b)..=a.max(b)).contains(&value);
    between(point.latitude, lo.latitude, hi.latitude)
        && between(point.longitude, lo.longitude, hi.longitude)
}

/// Metres along the great circle.
#[must_use]
pub fn distance_metres(from: Point, to: Point) -> f64 {
    let radians = |units: i32| (f64::from(units) / PER_DEGREE).to_radians();
    let half_sine = |a: i32, b: i32| ((radians(b) - radians(a)) / 2.0).sin();
    let north = half_sine(from.latitude, to.latitude);
    let east = half_sine(from.longitude, to.longitude);
    let shrink = radians(from.latitude).cos() * radians(to.latitude).cos();
    let haversine = (north * north + shrink * east * east).clamp(0.0, 1.0);
    2.0 * EARTH_RADIUS_METRES * haversine.sqrt().asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn point(latitude: i32, longitude: i32) -> Point {
        Point {
            latitude,
            longitude,
        }
    }

    #[test]
    fn a_hundred_places_have_names_and_points_of_their_own() {
        let mut places = all();
        assert_eq!(places.len(), 100);
        assert_eq!(places[0].name, "Upper Mill");
        assert_eq!(places[99].location, Some(point(409_000_000, -741_000_000)));
        places.sort_by(|a, b| a.name.cmp(&b.name));
        places.dedup_by(|a, b| a.name == b.name || a.location == b.location);
        assert_eq!(places.len(), 100);
    }

    #[test]
    fn distances_are_those_of_a_sphere() {
        let quarter = distance_metres(point(0, 0), point(900_000_000, 0));
        assert!((quarter - 10_007_543.0).abs() < 1.0, "{quarter}");
        let around = distance_metres(point(0, -1_800_000_000), point(0, 1_800_000_000));
        assert!(around < 1.0, "{around}");
        let opposite = distance_metres(point(0, 0), point(0, 1_800_000_000));
        assert!((opposite - 20_015_087.0).abs() < 1.0, "{opposite}");
        let degree = distance_metres(point(600_000_000, 0), point(600_000_000, 10_000_000));
        assert!((degree - 55_597.0).abs() < 5.0, "{degree}");
    }

    #[test]
    fn a_rectangle_has_its_corners_in_any_order_and_its_border() {
        let corners = [point(-1, 5), point(1, -5)];
        for (lo, hi) in [(corners[0], corners[1]), (corners[1], corners[0])] {
            let rectangle = Rectangle {
                lo: Some(lo),
                hi: Some(hi),
            };
            assert!(is_in(point(1, 5), rectangle) && is_in(point(0, 0), rectangle));
            assert!(!is_in(point(2, 0), rectangle) && !is_in(point(0, -6), rectangle));
        }
    }

    #[test]
    fn the_ends_of_the_earth_are_on_it_and_numbers_beyond_are_not() {
        assert!(is_on_earth(point(-900_000_000, 1_800_000_000)));
        assert!(!is_on_earth(point(900_000_001, 0)));
        assert!(!is_on_earth(point(0, i32::MIN)));
    }
}
