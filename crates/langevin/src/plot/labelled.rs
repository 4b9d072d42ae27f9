//! Pictures in rows and columns, with what each row and column is beside them.

use plotters::{
    prelude::*,
    style::{FontStyle, register_font, text_anchor},
};

use super::{Drawn, FONT, INK};
use crate::{
    Error, Result,
    data::{Channels, Picture},
    grid::{enlarge, visible_scale},
};

/// The height of letters, in pixels.
const LETTERS: usize = 18;
/// Between letters and pictures, and between pictures.
const SPACE: usize = 8;
/// The most letters of a label that are shown.
const LONGEST: usize = 40;
/// Smaller pictures are enlarged, so that a label has room above them.
const SMALLEST: usize = 96;
/// Pictures of this width are not, however long a label is.
const WIDEST: usize = 256;

/// Pictures row by row, with a label above each column and before each row; an empty one is none.
///
/// # Errors
/// [`Error::Shape`] if there are not as many pictures as rows times columns, or they differ in size.
pub fn labelled(pictures: &[Picture], columns: &[String], rows: &[String]) -> Result<Picture> {
    let first = pictures
        .first()
        .filter(|_| pictures.len() == columns.len() * rows.len());
    let Some(first) = first else {
        return Err(Error::Shape(format!(
            "{} pictures do not make {} rows of {}",
            pictures.len(),
            rows.len(),
            columns.len()
        )));
    };
    if let Some(other) = pictures
        .iter()
        .find(|p| (p.height(), p.width()) != (first.height(), first.width()))
    {
        return Err(Error::Shape(format!(
            "pictures beside each other are of one size, and not {first:?} and {other:?}"
        )));
    }
    let undrawn = |e: Box<dyn std::error::Error>| Error::Shape(format!("labels cannot be drawn: {e}"));
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| Error::Shape("the built-in font is damaged".into()))?;
    let font = || (FONT, LETTERS as f64).into_font();
    let wide = |label: &String| font().box_size(label).map_or(0, |(width, _)| width as usize);
    let fitted = |label: &String, room: usize| {
        let mut shown: String = label.chars().take(LONGEST).collect();
        while !shown.is_empty() && wide(&shown) > room {
            shown.pop();
        }
        shown
    };
    let widest = columns.iter().map(|label| wide(&fitted(label, usize::MAX))).max();
    let room = widest.unwrap_or_default().clamp(SMALLEST, WIDEST);
    let scale = visible_scale(first).max(room.div_ceil(first.width()));
    let (height, width) = (first.height() * scale, first.width() * scale);
    let rows: Vec<String> = rows.iter().map(|label| fitted(label, usize::MAX)).collect();
    let left = rows
        .iter()
        .map(wide)
        .max()
        .filter(|&widest| widest > 0)
        .map_or(SPACE, |widest| widest + 2 * SPACE);
    let top = if columns.iter().all(String::is_empty) {
        SPACE
    } else {
        LETTERS + 2 * SPACE
    };
    let (whole_width, whole_height) = (
        left + columns.len() * (width + SPACE),
        top + rows.len() * (height + SPACE),
    );
    let mut pixels = vec![255; whole_width * whole_height * 3];
    for (number, picture) in pictures.iter().enumerate() {
        let picture = enlarge(picture, scale)?.into_channels(Channels::Rgb);
        let (row, column) = (number / columns.len(), number % columns.len());
        let (y, x) = (top + row * (height + SPACE), left + column * (width + SPACE));
        for line in 0..height {
            pixels[((y + line) * whole_width + x) * 3..][..width * 3].copy_from_slice(picture.row(line));
        }
    }
    let draw = |pixels: &mut [u8]| -> Drawn {
        let root =
            BitMapBackend::with_buffer(pixels, (whole_width as u32, whole_height as u32)).into_drawing_area();
        let style = |horizontal| {
            font()
                .color(&INK)
                .pos(text_anchor::Pos::new(horizontal, text_anchor::VPos::Center))
        };
        for (column, label) in columns.iter().enumerate() {
            let place = (left + column * (width + SPACE) + width / 2, SPACE + LETTERS / 2);
            let place = (place.0 as i32, place.1 as i32);
            root.draw(&Text::new(
                fitted(label, width),
                place,
                style(text_anchor::HPos::Center),
            ))?;
        }
        for (row, label) in rows.iter().enumerate() {
            let place = (
                (left - SPACE) as i32,
                (top + row * (height + SPACE) + height / 2) as i32,
            );
            root.draw(&Text::new(label.clone(), place, style(text_anchor::HPos::Right)))?;
        }
        root.present()?;
        Ok(())
    };
    draw(&mut pixels).map_err(undrawn)?;
    Picture::new(whole_height, whole_width, Channels::Rgb, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_beside_the_pictures() {
        let picture = |value| Picture::filled(8, 12, Channels::Rgb, value);
        let labels =
            |labels: &[&str]| -> Vec<String> { labels.iter().map(|label| (*label).to_string()).collect() };
        let pictures = [picture(10), picture(20), picture(30), picture(40)];
        let whole = labelled(&pictures, &labels(&["one", "two"]), &labels(&["a", "b"])).unwrap();
        // Every picture is there, enlarged by 8.
        for value in [10, 20, 30, 40] {
            let count = whole
                .pixels()
                .chunks_exact(3)
                .filter(|pixel| pixel.iter().all(|&v| v == value))
                .count();
            assert!(count >= 8 * 12 * 64, "{value}: {count}");
        }
        let long = labelled(
            &pictures,
            &labels(&["what does not fit", "two"]),
            &labels(&["a", "b"]),
        )
        .unwrap();
        assert!(long.width() > whole.width());
        let bare = labelled(&pictures, &labels(&["", ""]), &labels(&["", ""])).unwrap();
        assert!(bare.height() < whole.height() && bare.width() < whole.width());
        let ink = |p: &Picture| {
            p.pixels()
                .chunks_exact(3)
                .filter(|pixel| pixel[0] != pixel[2])
                .count()
        };
        assert!(ink(&whole) > 20 && ink(&bare) == 0);
        assert!(labelled(&pictures[..3], &labels(&["", ""]), &labels(&["", ""])).is_err());
        assert!(labelled(&[], &[], &[]).is_err());
        let sizes = [picture(1), Picture::filled(9, 12, Channels::Rgb, 1)];
        assert!(labelled(&sizes, &labels(&["x".repeat(500).as_str(), ""]), &labels(&[""])).is_err());
    }
}
