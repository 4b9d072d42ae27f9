//! Samplers by the names that A1111 gives them, beside the ones that they have here.

/// A1111's name, its schedule, and the name here.
const NAMES: [(&str, &str, &str); 18] = [
    ("Euler", "Automatic", "euler"),
    ("Euler a", "Automatic", "euler-a"),
    ("LMS", "Automatic", "lms"),
    ("Heun", "Automatic", "heun"),
    ("DPM2", "Automatic", "dpm2"),
    ("DPM2 a", "Automatic", "dpm2-a"),
    ("DPM++ 2S a", "Automatic", "dpm++2s"),
    ("DPM++ 2M", "Karras", "dpm++2m-karras"),
    ("DPM++ 2M", "Automatic", "dpm++2m"),
    ("DPM++ 2M SDE", "Karras", "dpm++2m-sde-karras"),
    ("DPM++ 2M SDE", "Automatic", "dpm++2m-sde"),
    ("DPM++ SDE", "Automatic", "dpm-sde"),
    ("DPM++ 3M SDE", "Automatic", "dpm++3m"),
    ("DDIM", "Automatic", "ddim"),
    ("PLMS", "Automatic", "pndm"),
    ("UniPC", "Automatic", "unipc"),
    ("LCM", "Automatic", "lcm"),
    ("DDPM", "Automatic", "ddpm"),
];

/// Names that stand for a sampler here that is not the same: the noise of each step is another, or there is none.
const APART: [&str; 3] = ["DPM++ 2S a", "DPM++ SDE", "DPM++ 3M SDE"];

/// A1111's name of a sampler here, with its schedule; its own name where A1111 has none.
pub(super) fn written(name: &str) -> (String, &'static str) {
    match NAMES
        .iter()
        .find(|(theirs, _, ours)| *ours == name && !APART.contains(theirs))
    {
        Some((theirs, schedule, _)) => ((*theirs).into(), schedule),
        None => (name.into(), "Automatic"),
    }
}

/// The sampler here that a name of A1111's stands for, and whether it is the same.
pub(super) fn read(sampler: &str, schedule: Option<&str>) -> Option<(&'static str, bool)> {
    // Before version 1.9 the schedule was part of the name.
    let (name, schedule) = match (sampler.strip_suffix(" Karras"), schedule) {
        (Some(name), _) => (name, "Karras"),
        (None, schedule) => (sampler, schedule.unwrap_or("Automatic")),
    };
    let find = |schedule: &str| {
        NAMES
            .iter()
            .find(|(theirs, own, _)| theirs.eq_ignore_ascii_case(name) && *own == schedule)
    };
    if let Some((theirs, _, ours)) = find(schedule) {
        return Some((ours, !APART.contains(theirs)));
    }
    // Another schedule than the sampler is to be had with here.
    find("Automatic").map(|(_, _, ours)| (*ours, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::SamplerName;

    #[test]
    fn names_go_there_and_back() {
        for (theirs, schedule, ours) in NAMES {
            assert!(SamplerName::find(ours).is_some(), "{ours}");
            if !APART.contains(&theirs) {
                assert_eq!(written(ours), (theirs.to_string(), schedule));
                assert_eq!(read(theirs, Some(schedule)), Some((ours, true)));
            }
        }
        assert_eq!(read("DPM++ 2M Karras", None), Some(("dpm++2m-karras", true)));
        assert_eq!(read("Euler", Some("SGM Uniform")), Some(("euler", false)));
        assert_eq!(read("Restart", None), None);
        assert_eq!(written("tcd"), ("tcd".into(), "Automatic"));
    }
}
