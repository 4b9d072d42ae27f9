//! Pictures on disk: grids of samples, PNG with text inside, animated GIF.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek, Write},
    path::Path,
};

use image::{
    Delay, DynamicImage, Frame, GrayImage, ImageFormat, RgbImage,
    codecs::gif::{GifEncoder, Repeat},
};

use crate::{
    Error, Result,
    data::{Channels, EXTENSIONS, Picture},
    files::write_atomically,
};

/// Pictures smaller than this a side are enlarged in grids.
const VISIBLE_SIDE: usize = 64;
/// The most bytes of texts that are read of one PNG.
const MOST_TEXT: usize = 8 << 20;
/// The colour between pictures.
const BACKGROUND: u8 = 255;
/// The colours of a GIF are chosen from a sample of pixels; 1 is the finest and slowest, 30 the coarsest.
const GIF_SPEED: i32 = 10;

/// The pictures of a batch in [-1, 1], `shape` = `[count, channels, height, width]`, as diffusers' pipelines round
/// them ([`Picture::from_chw`]).
///
/// # Errors
/// [`Error::Shape`] if `values` does not have `shape`, or a picture has neither 1 nor 3 channels.
pub fn to_pictures(values: &[f32], shape: [usize; 4]) -> Result<Vec<Picture>> {
    let [count, channels, height, width] = shape;
    let size = channels * height * width;
    if values.len() != count * size {
        return Err(Error::Shape(format!(
            "{} values do not make pictures of shape {shape:?}",
            values.len()
        )));
    }
    (0..count)
        .map(|i| Picture::from_chw(&values[i * size..(i + 1) * size], channels, height, width))
        .collect()
}

/// The whole number to enlarge a picture by so that it can be seen: 8 for 8x8 pixels, 1 from 64 on.
pub fn visible_scale(picture: &Picture) -> usize {
    VISIBLE_SIDE.div_ceil(picture.height().max(picture.width()))
}

/// The picture enlarged by a whole number: every pixel becomes a `scale` x `scale` square.
///
/// # Errors
/// [`Error::Config`] if `scale` is zero.
pub fn enlarge(picture: &Picture, scale: usize) -> Result<Picture> {
    if scale == 0 {
        return Err(Error::Config("a picture cannot be enlarged by 0".into()));
    }
    let c = picture.channels().count();
    let mut pixels = Vec::with_capacity(picture.pixels().len() * scale * scale);
    for y in 0..picture.height() {
        let row: Vec<u8> = picture
            .row(y)
            .chunks_exact(c)
            .flat_map(|pixel| pixel.repeat(scale))
            .collect();
        (0..scale).for_each(|_| pixels.extend(&row));
    }
    Picture::new(
        picture.height() * scale,
        picture.width() * scale,
        picture.channels(),
        pixels,
    )
}

/// Pictures side by side, row by row, `columns` in a row, on white, with `padding` pixels between and around them.
///
/// Each is first enlarged by `scale` ([`visible_scale`] knows a good one). If some are in colour, all become so.
///
/// # Errors
/// [`Error::Shape`] if there is no picture or they differ in size; [`Error::Config`] if `columns` or `scale` is zero.
pub fn grid(pictures: &[Picture], columns: usize, padding: usize, scale: usize) -> Result<Picture> {
    let first = pictures
        .first()
        .ok_or_else(|| Error::Shape("a grid needs at least one picture".into()))?;
    if columns == 0 {
        return Err(Error::Config("a grid needs at least one column".into()));
    }
    if let Some(other) = pictures
        .iter()
        .find(|p| (p.height(), p.width()) != (first.height(), first.width()))
    {
        return Err(Error::Shape(format!(
            "a grid's pictures are of one size, and not {first:?} and {other:?}"
        )));
    }
    let colour = pictures.iter().any(|p| p.channels() == Channels::Rgb);
    let channels = if colour { Channels::Rgb } else { Channels::Grey };
    let (rows, columns) = (pictures.len().div_ceil(columns), columns.min(pictures.len()));
    let (step_y, step_x) = (first.height() * scale + padding, first.width() * scale + padding);
    let (height, width) = (rows * step_y + padding, columns * step_x + padding);
    let c = channels.count();
    let mut pixels = vec![BACKGROUND; height * width * c];
    for (i, picture) in pictures.iter().enumerate() {
        let picture = enlarge(picture, scale)?.into_channels(channels);
        let (top, left) = (padding + i / columns * step_y, padding + i % columns * step_x);
        for y in 0..picture.height() {
            pixels[((top + y) * width + left) * c..][..picture.width() * c].copy_from_slice(picture.row(y));
        }
    }
    Picture::new(height, width, channels, pixels)
}

/// How many pictures stand side by side where nobody says: about as many as below each other.
pub fn columns(pictures: usize) -> usize {
    pictures.isqrt() + usize::from(pictures.isqrt().pow(2) < pictures)
}

/// Pictures as one, as far apart as torchvision's `make_grid` sets them, and large enough to be seen.
///
/// # Errors
/// As [`grid`].
pub fn side_by_side(pictures: &[Picture], columns: usize) -> Result<Picture> {
    const PADDING: usize = 2;
    grid(
        pictures,
        columns,
        PADDING,
        pictures.first().map_or(1, visible_scale),
    )
}

/// Writes a picture in the format that the path's ending names. `text` goes into a PNG; other formats have no
/// place for it.
///
/// # Errors
/// [`Error::Unsupported`] if the ending is none of [`EXTENSIONS`]; otherwise as [`write_png`].
pub fn write_picture(path: impl AsRef<Path>, picture: &Picture, text: &[(&str, String)]) -> Result<()> {
    let path = path.as_ref();
    let format = ImageFormat::from_path(path)
        .ok()
        .filter(|_| crate::data::is_picture_name(path));
    let Some(format) = format else {
        return Err(Error::Unsupported(format!(
            "{} does not end as a picture that can be written ({})",
            path.display(),
            EXTENSIONS.join(", ")
        )));
    };
    if format == ImageFormat::Png {
        return write_png(path, picture, text);
    }
    let image = to_dynamic(picture)?;
    // JPEG and the others have no shades beyond these two kinds; GIF and WebP want colours.
    let image = match format {
        ImageFormat::Gif | ImageFormat::WebP => DynamicImage::from(image.into_rgb8()),
        _ => image,
    };
    let mut bytes = io::Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, format)
        .map_err(|e| Error::file(path, format!("cannot hold a picture of this size: {e}")))?;
    write_atomically(path, |w| w.write_all(bytes.get_ref()))
}

fn to_dynamic(picture: &Picture) -> Result<DynamicImage> {
    let too_large = || Error::Shape(format!("{picture:?} is too large for a file"));
    let (width, height) = (
        u32::try_from(picture.width()).ok(),
        u32::try_from(picture.height()).ok(),
    );
    let (width, height) = width.zip(height).ok_or_else(too_large)?;
    let pixels = picture.pixels().to_vec();
    match picture.channels() {
        Channels::Grey => GrayImage::from_raw(width, height, pixels).map(Into::into),
        Channels::Rgb => RgbImage::from_raw(width, height, pixels).map(Into::into),
    }
    .ok_or_else(too_large)
}

/// Writes a PNG with `text` in it: pairs of a keyword (1 to 79 Latin-1 characters) and what it says, as `tEXt`
/// chunks, or `iTXt` where Latin-1 has not the letters. Viewers and Pillow (`image.text`) show them.
///
/// # Errors
/// If the file cannot be written or a keyword is not one; what was at `path` before is then still there.
pub fn write_png(path: impl AsRef<Path>, picture: &Picture, text: &[(&str, String)]) -> Result<()> {
    write_atomically(path, |w| encode_png(w, picture, text).map_err(io::Error::other))
}

/// A picture as the bytes of a PNG file, without texts.
///
/// # Errors
/// [`Error::Shape`] if it is too large for one.
pub fn png_bytes(picture: &Picture) -> Result<Vec<u8>> {
    png_bytes_with(picture, &[])
}

/// A picture as the bytes of a PNG file with `text` in it, as [`write_png`] has it.
///
/// # Errors
/// [`Error::Shape`] if the picture is too large for one, or a keyword is not one.
pub fn png_bytes_with(picture: &Picture, text: &[(&str, String)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode_png(&mut bytes, picture, text)
        .map_err(|e| Error::Shape(format!("{picture:?} cannot be a PNG: {e}")))?;
    Ok(bytes)
}

fn encode_png(
    w: &mut dyn Write,
    picture: &Picture,
    text: &[(&str, String)],
) -> Result<(), png::EncodingError> {
    let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(w, side(picture.width()), side(picture.height()));
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(match picture.channels() {
        Channels::Grey => png::ColorType::Grayscale,
        Channels::Rgb => png::ColorType::Rgb,
    });
    for (keyword, text) in text {
        let is_latin_1 = text.chars().all(|c| c != '\0' && u32::from(c) <= 0xFF);
        if is_latin_1 {
            encoder.add_text_chunk((*keyword).to_string(), text.clone())?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_string(), text.clone())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.pixels())?;
    writer.finish()
}

/// The texts that a PNG holds before its pixels: keywords and what they say.
///
/// # Errors
/// If the file cannot be read or is no PNG.
pub fn read_png_text(path: impl AsRef<Path>) -> Result<Vec<(String, String)>> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    png_texts(BufReader::new(file)).map_err(|e| Error::file(path, e.to_string()))
}

/// The same of a PNG that is read from anywhere.
///
/// # Errors
/// If it is none, or not whole up to its pixels: a part of a sentence.
pub fn png_texts(png: impl BufRead + Seek) -> Result<Vec<(String, String)>> {
    let broken = |e: &dyn std::fmt::Display| Error::Config(format!("is not a whole PNG: {e}"));
    let reader = png::Decoder::new(png).read_info().map_err(|e| broken(&e))?;
    let info = reader.info();
    let (mut texts, mut taken) = (Vec::new(), 0);
    let mut take = |keyword: &str, text: String| {
        taken += text.len();
        texts.push((keyword.to_string(), text));
        match taken > MOST_TEXT {
            true => Err(broken(&"its texts are longer than any that say something")),
            false => Ok(()),
        }
    };
    for chunk in &info.uncompressed_latin1_text {
        take(&chunk.keyword, chunk.text.clone())?;
    }
    for chunk in &info.compressed_latin1_text {
        // A few bytes may stand for very many.
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MOST_TEXT)
            .map_err(|e| broken(&e))?;
        take(&chunk.keyword, chunk.get_text().map_err(|e| broken(&e))?)?;
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MOST_TEXT)
            .map_err(|e| broken(&e))?;
        take(&chunk.keyword, chunk.get_text().map_err(|e| broken(&e))?)?;
    }
    Ok(texts)
}

/// Writes an endless animated GIF. Each frame stands for `delay_ms` (GIF counts in tens), the last for
/// `last_frame_hold` milliseconds.
///
/// # Errors
/// [`Error::Shape`] if there is no frame or they differ in size; otherwise if the file cannot be written.
pub fn write_gif(
    path: impl AsRef<Path>,
    frames: &[Picture],
    delay_ms: u32,
    last_frame_hold: u32,
) -> Result<()> {
    let bytes = gif_bytes(frames, delay_ms, last_frame_hold)?;
    write_atomically(path, |w| w.write_all(&bytes))
}

/// The bytes of the file that [`write_gif`] writes.
///
/// # Errors
/// [`Error::Shape`] if there is no frame, they differ in size, or are too large for a GIF.
pub fn gif_bytes(frames: &[Picture], delay_ms: u32, last_frame_hold: u32) -> Result<Vec<u8>> {
    let first = frames
        .first()
        .ok_or_else(|| Error::Shape("an animation needs at least one frame".into()))?;
    if frames
        .iter()
        .any(|frame| (frame.height(), frame.width()) != (first.height(), first.width()))
    {
        return Err(Error::Shape("an animation's frames are of one size".into()));
    }
    let images = frames.iter().map(to_dynamic).collect::<Result<Vec<_>>>()?;
    let count = images.len();
    let mut bytes = Vec::new();
    let encode = || {
        let mut encoder = GifEncoder::new_with_speed(&mut bytes, GIF_SPEED);
        encoder.set_repeat(Repeat::Infinite)?;
        let frames = images.into_iter().zip(1..).map(|(image, number)| {
            let delay = if number == count {
                last_frame_hold
            } else {
                delay_ms
            };
            Frame::from_parts(image.into_rgba8(), 0, 0, Delay::from_numer_denom_ms(delay, 1))
        });
        encoder.encode_frames(frames)
    };
    encode().map_err(|e| Error::Shape(format!("frames like {first:?} cannot be a GIF: {e}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use image::{AnimationDecoder, codecs::gif::GifDecoder};

    use super::*;
    use crate::data::read_picture;

    fn grey(height: usize, width: usize, pixels: &[u8]) -> Picture {
        Picture::new(height, width, Channels::Grey, pixels.to_vec()).unwrap()
    }

    #[test]
    fn a_grid_places_pictures_row_by_row() {
        let pictures = [grey(1, 2, &[1, 2]), grey(1, 2, &[3, 4]), grey(1, 2, &[5, 6])];
        let grid = grid(&pictures, 2, 1, 1).unwrap();
        assert_eq!((grid.height(), grid.width()), (5, 7));
        let w = 255;
        #[rustfmt::skip]
        assert_eq!(grid.pixels(), [
            w, w, w, w, w, w, w,
            w, 1, 2, w, 3, 4, w,
            w, w, w, w, w, w, w,
            w, 5, 6, w, w, w, w,
            w, w, w, w, w, w, w,
        ]);
    }

    #[test]
    fn a_grid_is_about_square() {
        assert_eq!([1, 2, 4, 5, 16, 17].map(columns), [1, 2, 2, 3, 4, 5]);
    }

    #[test]
    fn small_pictures_are_enlarged_by_whole_numbers() {
        let picture = grey(1, 2, &[1, 2]);
        assert_eq!(
            enlarge(&picture, 2).unwrap(),
            grey(2, 4, &[1, 1, 2, 2, 1, 1, 2, 2])
        );
        let scale = |side| visible_scale(&grey(side, side, &vec![0; side * side]));
        assert_eq!([8, 28, 32, 63, 64, 256].map(scale), [8, 3, 2, 2, 1, 1]);
    }

    #[test]
    fn grey_among_colours_becomes_colour() {
        let colour = Picture::new(1, 1, Channels::Rgb, vec![1, 2, 3]).unwrap();
        let grid = grid(&[grey(1, 1, &[9]), colour], 5, 0, 1).unwrap();
        assert_eq!((grid.width(), grid.pixels()), (2, &[9, 9, 9, 1, 2, 3][..]));
    }

    #[test]
    fn what_makes_no_grid_is_refused() {
        assert!(grid(&[], 1, 0, 1).is_err());
        assert!(grid(&[grey(1, 1, &[0])], 0, 0, 1).is_err());
        assert!(grid(&[grey(1, 1, &[0])], 1, 0, 0).is_err());
        assert!(grid(&[grey(1, 1, &[0]), grey(1, 2, &[0, 0])], 1, 0, 1).is_err());
        assert!(to_pictures(&[0.0; 5], [1, 1, 2, 3]).is_err());
        assert!(to_pictures(&[0.0; 8], [1, 2, 2, 2]).is_err());
        assert_eq!(to_pictures(&[1.0; 6], [2, 3, 1, 1]).unwrap().len(), 2);
    }

    #[test]
    fn png_keeps_pixels_and_texts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/a.png");
        let picture = grey(2, 2, &[0, 100, 200, 255]);
        let texts = [
            ("seed", "7".to_string()),
            ("model", "Gödel".to_string()),
            ("prompt", "猫\nand 🐕".to_string()),
        ];
        write_picture(&path, &picture, &texts).unwrap();
        assert_eq!(read_picture(&path).unwrap(), picture);
        assert_eq!(
            read_png_text(&path).unwrap(),
            texts.map(|(k, v)| (k.to_string(), v))
        );
        let bytes = std::fs::read(&path).unwrap();
        let has = |kind: &[u8]| bytes.windows(4).any(|w| w == kind);
        assert!(has(b"tEXt") && has(b"iTXt"));
    }

    #[test]
    fn texts_that_claim_too_much_are_refused() {
        let of = |texts: usize| {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
            encoder.set_color(png::ColorType::Grayscale);
            for number in 0..texts {
                let long = "x".repeat(1 << 20);
                match number % 2 {
                    0 => encoder.add_ztxt_chunk(format!("k{number}"), long).unwrap(),
                    _ => encoder.add_itxt_chunk(format!("k{number}"), long).unwrap(),
                }
            }
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(&[0]).unwrap();
            writer.finish().unwrap();
            png_texts(io::Cursor::new(bytes))
        };
        assert_eq!(of(6).unwrap().len(), 6);
        let why = of(9).unwrap_err().to_string();
        assert!(why.contains("longer than any"), "{why}");
    }

    #[test]
    fn a_bad_keyword_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            write_png(
                folder.path().join("a.png"),
                &grey(1, 1, &[0]),
                &[("", "x".into())]
            )
            .is_err()
        );
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn every_ending_that_is_read_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let colour = Picture::new(16, 16, Channels::Rgb, [200, 100, 50].repeat(256)).unwrap();
        for picture in [grey(16, 16, &[90; 256]), colour] {
            for ending in EXTENSIONS {
                let path = folder.path().join(format!("a.{ending}"));
                write_picture(&path, &picture, &[]).unwrap();
                let back = read_picture(&path).unwrap().into_channels(picture.channels());
                let off = back
                    .pixels()
                    .iter()
                    .zip(picture.pixels())
                    .map(|(a, b)| a.abs_diff(*b))
                    .max()
                    .unwrap();
                assert!(off <= 4, "{ending} is off by {off}");
            }
        }
        let error = write_picture(folder.path().join("a.xyz"), &grey(1, 1, &[0]), &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("a.xyz does not end as a picture"), "{error}");
        assert!(write_picture(folder.path().join("a"), &grey(1, 1, &[0]), &[]).is_err());
    }

    #[test]
    fn an_animation_has_its_frames_and_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gif");
        let frames = [0, 128, 255].map(|v| grey(4, 4, &[v; 16]));
        write_gif(&path, &frames, 50, 1500).unwrap();
        let decoder = GifDecoder::new(BufReader::new(File::open(&path).unwrap())).unwrap();
        let back = decoder.into_frames().collect_frames().unwrap();
        let times: Vec<_> = back.iter().map(|f| f.delay().numer_denom_ms()).collect();
        assert_eq!(times, [(50, 1), (50, 1), (1500, 1)]);
        assert_eq!(
            back.iter()
                .map(|f| f.buffer().get_pixel(1, 1)[0])
                .collect::<Vec<_>>(),
            [0, 128, 255]
        );
        assert!(write_gif(&path, &[], 1, 1).is_err());
        assert!(write_gif(&path, &[grey(1, 1, &[0]), grey(1, 2, &[0, 0])], 1, 1).is_err());
    }
}
