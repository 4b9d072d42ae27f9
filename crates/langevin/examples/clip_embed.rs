//! Embeds a picture and some texts with CLIP, and says how alike they are:
//!
//! ```text
//! cargo run --release --example clip_embed -- FOLDER PICTURE "a red rose" "a cat"
//! ```

use burn::tensor::{Tensor, TensorData};
use langevin::{
    Error, Result,
    data::read_picture,
    device::default_device,
    models::clip::{ClipModel, unit},
};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, picture, texts @ ..] = words.as_slice() else {
        return Err(Error::Config("usage: clip_embed FOLDER PICTURE TEXT...".into()));
    };
    let device = default_device();
    let clip = ClipModel::load(folder, &device)?;
    let picture = read_picture(picture)?;
    let values: Vec<f32> = picture
        .pixels()
        .iter()
        .map(|&byte| f32::from(byte) / 255.0)
        .collect();
    let shape = [1, picture.height(), picture.width(), picture.channels().count()];
    let pixels = Tensor::<4>::from_data(TensorData::new(values, shape), &device).permute([0, 3, 1, 2]);

    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let of_picture = clip.encode_image(pixels)?;
    let of_texts = clip.encode_text(&texts)?;
    let similarity = unit(of_picture.clone()).matmul(unit(of_texts.clone()).transpose());
    // One JSON object, for whatever compares it.
    for (name, tensor, last) in [
        ("image", of_picture, false),
        ("text", of_texts, false),
        ("similarity", similarity, true),
    ] {
        let [rows, columns] = tensor.dims();
        let values = tensor.into_data().convert::<f32>();
        let values = values
            .as_slice::<f32>()
            .map_err(|e| Error::Shape(format!("the embeddings cannot be read: {e:?}")))?;
        let rows: Vec<&[f32]> = (0..rows).map(|row| &values[row * columns..][..columns]).collect();
        let start = if name == "image" { "{" } else { "" };
        println!("{start}\"{name}\": {rows:?}{}", if last { "}" } else { "," });
    }
    Ok(())
}
