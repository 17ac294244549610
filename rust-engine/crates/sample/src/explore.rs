//! A JSON and a CSV file worth exploring: `stations.json` has nested objects, lists and nulls, `weather.csv`
//! has dates, zip codes with leading zeros, quoted text and missing values. They join by the station's id.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::file::write_whole;

/// 2024 is a leap year: 29 February is in the file.
const YEAR: i32 = 2024;
const MONTH_DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// What both files know of a station; temperatures are tenths of a degree, so that no float is rounded.
struct Station {
    id: &'static str,
    name: &'static str,
    state: &'static str,
    zip: &'static str,
    lat: &'static str,
    lon: &'static str,
    elevation: Option<&'static str>,
    winter: i32,
    summer: i32,
}

const fn station(
    id: &'static str,
    name: &'static str,
    state: &'static str,
    zip: &'static str,
    place: (&'static str, &'static str, Option<&'static str>),
    temperatures: (i32, i32),
) -> Station {
    Station {
        id,
        name,
        state,
        zip,
        lat: place.0,
        lon: place.1,
        elevation: place.2,
        winter: temperatures.0,
        summer: temperatures.1,
    }
}

const STATIONS: [Station; 8] = [
    station("BOS", "Boston", "MA", "02128", ("42.361", "-71.01", Some("6")), (-12, 231)),
    station("BTV", "Burlington", "VT", "05403", ("44.468", "-73.15", Some("101.2")), (-68, 215)),
    station("DEN", "Denver", "CO", "80249", ("39.833", "-104.658", Some("1655.5")), (2, 238)),
    station("MIA", "Miami", "FL", "33126", ("25.788", "-80.317", Some("8.8")), (202, 291)),
    station("ORD", "Chicago \"O'Hare\"", "IL", "60666", ("41.96", "-87.932", Some("204.8")), (-38, 236)),
    station("PDX", "Portland", "OR", "97218", ("45.591", "-122.6", None), (48, 214)),
    station("PWM", "Portland, Maine", "ME", "04102", ("43.642", "-70.304", Some("19")), (-47, 208)),
    station("SJU", "San Juan", "PR", "00979", ("18.433", "-66.011", None), (252, 286)),
];

/// Writes both files into the folder.
pub(crate) fn write(folder: &Path) -> Result<()> {
    write_whole(folder, "stations.json", |out| Ok(out.write_all(stations_json().as_bytes())?))?;
    write_whole(folder, "weather.csv", |out| Ok(out.write_all(weather_csv().as_bytes())?))
}

fn stations_json() -> String {
    let rows: Vec<String> = STATIONS.iter().enumerate().map(station_json).collect();
    format!("[\n{}\n]\n", rows.join(",\n"))
}

fn station_json((number, station): (usize, &Station)) -> String {
    let name = station.name.replace('"', "\\\"");
    let elevation = station.elevation.unwrap_or("null");
    let mut sensors = String::from(r#"{"kind":"thermometer","unit":"°C","accuracy":0.1}"#);
    if number % 2 == 0 {
        sensors.push_str(r#",{"kind":"rain gauge","unit":"mm","accuracy":null}"#);
    }
    if number % 3 == 0 {
        sensors.push_str(r#",{"kind":"anemometer","unit":"km/h","accuracy":2}"#);
    }
    // A key that is missing, not null: readers have to fill it in.
    let retired = if station.id == "BTV" { r#","retired":"2024-09-30""# } else { "" };
    format!(
        r#"  {{"id":"{}","name":"{name}","address":{{"state":"{}","zip":"{}"}},"location":{{"lat":{},"lon":{},"elevation_m":{elevation}}},"sensors":[{sensors}]{retired}}}"#,
        station.id, station.state, station.zip, station.lat, station.lon
    )
}

fn weather_csv() -> String {
    let mut csv = String::from("date,station,zip,temp_max,temp_min,rain_mm,sky,note\n");
    let mut dice = Dice(0x5eed_0f0a);
    let mut day_of_year = 0;
    for (month, days) in (1..).zip(MONTH_DAYS) {
        for day in 1..=days {
            for station in &STATIONS {
                let retired = station.id == "BTV" && month > 9;
                if !retired {
                    push_day(&mut csv, station, (month, day, day_of_year), &mut dice);
                }
            }
            day_of_year += 1;
        }
    }
    csv
}

fn push_day(csv: &mut String, station: &Station, date: (u32, u32, i32), dice: &mut Dice) {
    let (month, day, day_of_year) = date;
    // A straight line up to the end of July and down again: integers only, so that every machine agrees.
    let from_peak = (day_of_year - 205).abs().min(366 - (day_of_year - 205).abs());
    let mean = station.summer - (station.summer - station.winter) * from_peak / 183;
    let high = mean + 30 + dice.roll(60);
    let low = mean - 30 - dice.roll(60);
    let wet = dice.roll(100) < 30;
    let rain = if wet { 1 + dice.roll(240) } else { 0 };
    let sky = match (wet, dice.roll(3)) {
        (true, _) if high < 10 => "snow",
        (true, _) => "rain",
        (false, 0) => "cloudy",
        (false, _) => "clear",
    };
    let gap = dice.roll(50) == 0;
    let temperatures = if gap { ",".to_owned() } else { format!("{},{}", tenths(high), tenths(low)) };
    let note = match (gap, rain > 200) {
        (true, _) => "\"sensor \"\"T1\"\" offline, no reading\"",
        (false, true) => "heavy",
        (false, false) => "",
    };
    let _ = writeln!(
        csv,
        "{YEAR}-{month:02}-{day:02},{},{},{temperatures},{},{sky},{note}",
        station.id,
        station.zip,
        tenths(rain)
    );
}

fn tenths(value: i32) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}.{}", value.abs() / 10, value.abs() % 10)
}

/// A fixed sequence of numbers (a 64-bit linear congruential generator, Knuth's constants).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: i32) -> i32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i32::try_from(self.0 >> 40).unwrap_or_default() % sides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_station_reports_every_day_until_it_is_retired() {
        let rows = weather_csv().lines().count() - 1;
        assert_eq!(rows, 8 * 366 - 92);
    }

    #[test]
    fn tenths_keep_the_sign_below_one() {
        assert_eq!([tenths(-3), tenths(0), tenths(127)], ["-0.3", "0.0", "12.7"]);
    }

    #[test]
    fn the_files_are_the_same_on_every_run() {
        assert_eq!(weather_csv(), weather_csv());
        assert!(stations_json().starts_with("[\n  {\"id\":\"BOS\""));
    }
}
