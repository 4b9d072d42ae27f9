//! Pictures in a terminal: two pixels a letter, as the colours of an upper half block and of what is behind it.

use langevin::data::{Channels, Picture};
use ratatui::{buffer::Buffer, layout::Rect, style::Color, widgets::Widget};

/// The largest side that a sample is shown with, in pixels.
const LARGEST: usize = 32;

/// The colours that a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// None, or too few for pictures, or none are wanted.
    None,
    /// A few names for lines and letters.
    Named,
    /// 216 colours and 24 greys.
    Indexed,
    /// All.
    True,
}

impl Colours {
    /// What the terminal says of itself by `COLORTERM` and `TERM`; none where `NO_COLOR` says so.
    pub(super) fn of_terminal() -> Self {
        Self::from_variables(|name| std::env::var(name).unwrap_or_default())
    }

    fn from_variables(variable: impl Fn(&str) -> String) -> Self {
        let (colour_term, term) = (variable("COLORTERM"), variable("TERM"));
        if !variable("NO_COLOR").is_empty() {
            Self::None
        } else if colour_term == "truecolor" || colour_term == "24bit" || term.ends_with("-direct") {
            Self::True
        } else if term.contains("256color") {
            Self::Indexed
        } else {
            Self::Named
        }
    }

    /// Whether pictures can be told.
    pub(super) fn shows_pictures(self) -> bool {
        matches!(self, Self::Indexed | Self::True)
    }

    fn color(self, [r, g, b]: [u8; 3]) -> Color {
        if self == Self::True {
            return Color::Rgb(r, g, b);
        }
        // A cube of six levels a channel from 16, a ramp of greys from 232.
        let level = |value: u8| (u16::from(value) * 5 + 127) / 255;
        let spread = r.max(g).max(b) - r.min(g).min(b);
        if spread < 10 && (8..=238).contains(&g) {
            return Color::Indexed(232 + ((u16::from(g) - 8) / 10) as u8);
        }
        Color::Indexed((16 + 36 * level(r) + 6 * level(g) + level(b)) as u8)
    }
}

/// As many of the pictures as there is room for, in rows.
pub(super) struct Samples<'a> {
    pub pictures: &'a [Picture],
    pub colours: Colours,
}

impl Widget for Samples<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let Some(first) = self.pictures.first() else {
            return;
        };
        let (width, height) = (usize::from(area.width), 2 * usize::from(area.height));
        let native = first.width().max(first.height());
        // Small ones are enlarged by a whole number where two rows still fit.
        let enlarged = native * (height / 2 / native).clamp(1, 2);
        let side = enlarged.min(LARGEST).min(height).min(width);
        if side == 0 {
            return;
        }
        // An even height of each keeps a letter within one picture.
        let (step_x, step_y) = (side + 1, (side + 1).next_multiple_of(2));
        let (columns, rows) = ((width + 1) / step_x, (height + step_y - side) / step_y);
        let room = (columns * rows).min(self.pictures.len());
        for place in 0..room {
            // Evenly apart, so that they are of several classes where there are some.
            let picture = &self.pictures[place * self.pictures.len() / room];
            let (left, top) = (place % columns * step_x, place / columns * step_y);
            for y in (0..side).step_by(2) {
                for x in 0..side {
                    let cell = (area.x + (left + x) as u16, area.y + ((top + y) / 2) as u16);
                    if let Some(cell) = buffer.cell_mut(cell) {
                        cell.set_char('▀')
                            .set_fg(self.colours.color(pixel(picture, x, y, side)));
                        if y + 1 < side {
                            cell.set_bg(self.colours.color(pixel(picture, x, y + 1, side)));
                        }
                    }
                }
            }
        }
    }
}

/// The mean colour of what the pixel at (`x`, `y`) covers when the picture is brought to `side` x `side`.
fn pixel(picture: &Picture, x: usize, y: usize, side: usize) -> [u8; 3] {
    let part = |at: usize, of: usize| {
        let start = at * of / side;
        start..((at + 1) * of / side).max(start + 1)
    };
    let channels = picture.channels().count();
    let (mut sums, mut count) = ([0usize; 3], 0);
    for row in part(y, picture.height()) {
        for column in part(x, picture.width()) {
            let at = (row * picture.width() + column) * channels;
            for (channel, sum) in sums.iter_mut().enumerate() {
                let channel = if picture.channels() == Channels::Grey {
                    0
                } else {
                    channel
                };
                *sum += usize::from(picture.pixels()[at + channel]);
            }
            count += 1;
        }
    }
    sums.map(|sum| (sum / count) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_two_pixels() {
        let picture = Picture::new(
            2,
            2,
            Channels::Rgb,
            vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9],
        )
        .unwrap();
        let area = Rect::new(0, 0, 2, 1);
        let mut buffer = Buffer::empty(area);
        let samples = Samples {
            pictures: &[picture],
            colours: Colours::True,
        };
        samples.render(area, &mut buffer);
        let cell = &buffer[(0, 0)];
        assert_eq!(
            (cell.symbol(), cell.fg, cell.bg),
            ("▀", Color::Rgb(255, 0, 0), Color::Rgb(0, 0, 255))
        );
        let cell = &buffer[(1, 0)];
        assert_eq!((cell.fg, cell.bg), (Color::Rgb(0, 255, 0), Color::Rgb(9, 9, 9)));
    }

    #[test]
    fn pictures_of_any_size_fit_any_room() {
        for side in [1, 3, 8, 33, 256] {
            let pictures = vec![Picture::new(side, side, Channels::Grey, vec![100; side * side]).unwrap(); 9];
            for (width, height) in [(0, 0), (1, 1), (7, 2), (40, 9), (200, 60)] {
                let area = Rect::new(3, 2, width, height);
                let mut buffer = Buffer::empty(Rect::new(0, 0, width + 3, height + 2));
                let samples = Samples {
                    pictures: &pictures,
                    colours: Colours::Indexed,
                };
                samples.render(area, &mut buffer);
                if width > 6 {
                    assert_eq!(
                        buffer[(3, 2)].fg,
                        Color::Indexed(232 + 9),
                        "{side} in {width}x{height}"
                    );
                }
            }
        }
    }

    #[test]
    fn colours_are_what_the_terminal_has() {
        let of = |pairs: &[(&str, &str)]| {
            Colours::from_variables(|name| {
                let pair = pairs.iter().find(|(known, _)| *known == name);
                pair.map_or_else(String::new, |(_, value)| (*value).to_string())
            })
        };
        let clever = [("TERM", "xterm-256color"), ("COLORTERM", "truecolor")];
        assert_eq!(of(&clever), Colours::True);
        assert_eq!(of(&clever[..1]), Colours::Indexed);
        assert_eq!(of(&[("TERM", "vt100")]), Colours::Named);
        assert_eq!(of(&[clever[0], clever[1], ("NO_COLOR", "1")]), Colours::None);
        assert_eq!(Colours::Indexed.color([0, 0, 0]), Color::Indexed(16));
        assert_eq!(Colours::Indexed.color([255, 255, 255]), Color::Indexed(231));
        assert_eq!(Colours::Indexed.color([128, 128, 128]), Color::Indexed(244));
        assert_eq!(Colours::Indexed.color([255, 0, 0]), Color::Indexed(196));
    }
}
