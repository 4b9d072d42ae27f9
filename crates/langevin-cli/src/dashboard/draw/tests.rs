use langevin::data::Channels;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

use super::*;

fn view(colours: Colours) -> View {
    let info = RunInfo {
        folder: "runs/digits-1".into(),
        dataset: "digits".into(),
        pictures: 1797,
        classes: vec![],
        model: "digits".into(),
        parameters: 1_707_009,
        resolution: 8,
        batch_size: 64,
        epochs: 55,
        steps: 1595,
    };
    View::new(&info, colours)
}

fn after(steps: usize, colours: Colours) -> View {
    let mut view = view(colours);
    for step in 1..=steps {
        view.step(&Progress {
            epoch: 4,
            epochs: 55,
            step,
            steps: 1595,
            loss: 0.2 + 1.0 / step as f64,
            learning_rate: 2e-3,
            pictures_per_second: 301.5,
            seconds_left: 125.0,
        });
    }
    view
}

fn drawn(view: &View, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let rows = buffer.content().chunks(width);
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
        .collect()
}

#[test]
fn a_run_is_told_at_a_glance() {
    let shown = text(&drawn(&after(120, Colours::True), 100, 30));
    for part in [
        "digits (1,707,009 parameters) on digits",
        "q ends the run",
        "step 120 of 1,595, epoch 4 of 55",
        "loss          0.2083",
        "learning rate 2.00e-3",
        "pictures/s    301.5",
        "left          2 min 5 s",
        "none yet; --log-samples-every N",
    ] {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
    // The curve falls: braille in the upper left and in the lower right of its panel.
    let rows: Vec<Vec<char>> = shown.lines().map(|row| row.chars().collect()).collect();
    let braille = |row: &[char], columns: std::ops::Range<usize>| {
        row[columns].iter().any(|c| ('\u{2801}'..='\u{28FF}').contains(c))
    };
    assert!(braille(&rows[4], 8..20), "{shown}");
    assert!(!braille(&rows[4], 40..69), "{shown}");
    assert!(rows[10..18].iter().any(|row| braille(row, 40..69)), "{shown}");
}

#[test]
fn samples_are_pictures_where_there_is_colour_only() {
    let grey = |value| Picture::new(8, 8, Channels::Grey, vec![value; 64]).unwrap();
    let show = |colours| {
        let mut view = after(120, colours);
        view.samples(100, vec![grey(200), grey(60)]);
        drawn(&view, 100, 30)
    };
    let buffer = show(Colours::True);
    assert!(text(&buffer).contains("samples after step 100"));
    let blocks: Vec<Color> = buffer
        .content()
        .iter()
        .filter(|cell| cell.symbol() == "▀")
        .map(|cell| cell.fg)
        .collect();
    assert!(blocks.contains(&Color::Rgb(200, 200, 200)) && blocks.contains(&Color::Rgb(60, 60, 60)));
    for colours in [Colours::None, Colours::Named] {
        assert!(!text(&show(colours)).contains('▀'));
    }
}

#[test]
fn without_colour_there_is_none() {
    let buffer = drawn(&after(120, Colours::None), 100, 30);
    assert!(
        buffer
            .content()
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
}

#[test]
fn any_state_fits_any_size() {
    let mut odd = view(Colours::True);
    odd.samples(
        0,
        vec![Picture::new(64, 64, Channels::Rgb, vec![7; 64 * 64 * 3]).unwrap()],
    );
    for view in [
        view(Colours::True),
        after(1, Colours::True),
        after(2, Colours::None),
        after(5000, Colours::Indexed),
        odd,
    ] {
        for (width, height) in [(1, 1), (10, 3), (60, 18), (80, 24), (250, 80)] {
            drawn(&view, width, height);
        }
    }
}
