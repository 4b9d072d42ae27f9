//! Pictures of the class that an instance is of, so that the model does not forget what others of it look like (Ruiz et al. 2022, "DreamBooth",
//! section 3.3). Those that are missing are drawn by the model as it was.

use std::{fs, path::Path};

use super::{Observer, TrainingConfig, latent::class_folder};
use crate::{
    Error, Request, Result, Size,
    data::{self, Cut, Dataset, Picture, Target, Transform},
    generate::{Plan, exchanged},
    grid,
    ops::in_pool,
    pipelines::Pipeline,
    random::Generator,
    world::Team,
};

/// The pictures, once they are all there.
pub(super) struct ClassPictures {
    prompt: String,
    dataset: Option<Box<dyn Dataset>>,
    /// Which of them can be read.
    readable: Vec<usize>,
}

/// Some of them, drawn by chance.
pub(super) struct DrawnClass {
    pub indices: Vec<usize>,
    pub pixels: Vec<f32>,
    pub sizes: Vec<Cut>,
}

impl ClassPictures {
    pub(super) fn new(prompt: &str) -> Self {
        Self {
            prompt: prompt.to_string(),
            dataset: None,
            readable: Vec::new(),
        }
    }

    /// What they are pictures of.
    pub(super) fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Draws those that are missing, each with a seed of its own, so that what was interrupted goes on; every process draws some, and the first
    /// writes. Whether an observer had enough before the last of them: nothing can be learned then.
    ///
    /// # Errors
    /// If one cannot be drawn or written, or the folder holds none that can be read.
    pub(super) fn fill(
        &mut self,
        config: &TrainingConfig,
        base: &Pipeline,
        run: &Path,
        team: &mut Team<'_>,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let folder = class_folder(config, run);
        let found = match team.is_first() {
            true => missing(config, &folder),
            false => Ok(Vec::new()),
        };
        let found = team.agree(found)?;
        let missing: Vec<usize> = team.speak(&found)?.swap_remove(0);
        if let (Some(first), count) = (missing.first(), missing.len()) {
            observer.message(&format!(
                "drawing {count} pictures of \"{}\" into {}, from number {first} on",
                self.prompt,
                folder.display()
            ));
        }
        for round in missing.chunks(team.size()) {
            if team.speak(&observer.should_stop())?.contains(&true) {
                observer.message("stopped before the last picture of the class: the run that goes on from here draws the rest");
                return Ok(true);
            }
            let own = round
                .get(team.rank())
                .map(|&number| self.drawn(config, base, number));
            let own = team.agree(own.transpose())?.flatten();
            let all = exchanged(team, own.as_slice(), &[false])?;
            let written = match team.is_first() {
                true => round.iter().zip(&all).try_for_each(|(number, (picture, _))| {
                    grid::write_png(folder.join(name(*number)), picture, &[])
                }),
                false => Ok(()),
            };
            team.agree(written)?;
        }
        self.open(&folder, observer).map(|()| false)
    }

    /// The picture of this number.
    fn drawn(&self, config: &TrainingConfig, base: &Pipeline, number: usize) -> Result<Option<Picture>> {
        let request = Request {
            prompt: vec![self.prompt.clone()],
            count: Some(1),
            seed: config.seed.wrapping_add(number as u64),
            size: Some(Size {
                height: config.resolution,
                width: config.resolution,
            }),
            ..Request::default()
        };
        let drawn = in_pool(|| Plan::of(base, &request)?.run(base, &mut ()))?;
        Ok(drawn.unwrap_or_default().into_iter().next())
    }

    /// Looks at what is in the folder.
    fn open(&mut self, folder: &Path, observer: &mut dyn Observer) -> Result<()> {
        // A folder that is called as built-in data are is a folder all the same.
        let folder = fs::canonicalize(folder).map_err(|e| Error::io("read", folder, e))?;
        let dataset = data::open(&folder.display().to_string())?;
        let (mut broken, mut first) = (0, None);
        for index in 0..dataset.len() {
            match dataset.get(index) {
                Ok(_) => self.readable.push(index),
                Err(error) => {
                    broken += 1;
                    first.get_or_insert(error);
                }
            }
        }
        if let Some(error) = first {
            observer.message(&format!(
                "{broken} of the pictures of the class cannot be read and are left out: {error}"
            ));
        }
        self.dataset = Some(dataset);
        Ok(())
    }

    /// So many of them, by chance, of this height and width.
    ///
    /// # Errors
    /// If there are none, or one cannot be read.
    pub(super) fn draw(
        &self,
        count: usize,
        transform: &Transform,
        size: [usize; 2],
        generator: &mut Generator,
    ) -> Result<DrawnClass> {
        let Some(dataset) = self.dataset.as_ref().filter(|_| !self.readable.is_empty()) else {
            return Err(Error::Config("there are no pictures of the class".into()));
        };
        let mut drawn = DrawnClass {
            indices: Vec::with_capacity(count),
            pixels: Vec::new(),
            sizes: Vec::with_capacity(count),
        };
        for place in generator.randint(0, self.readable.len() as i64, count) {
            let index = self.readable[place as usize];
            let picture = dataset.get(index)?.picture;
            let (pixels, cut) = match size == [transform.resolution; 2] {
                true => transform.apply_and_tell(picture, generator)?,
                false => {
                    let target = Target::covering(picture.height(), picture.width(), size);
                    transform.apply_towards(picture, target, generator)?
                }
            };
            drawn.pixels.extend(pixels);
            drawn.sizes.push(cut);
            drawn.indices.push(index);
        }
        Ok(drawn)
    }
}

/// The numbers of those that are not there, of a folder that is there then.
fn missing(config: &TrainingConfig, folder: &Path) -> Result<Vec<usize>> {
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let theirs = names
        .filter(|name| data::is_picture_name(Path::new(name)) && !name.starts_with(PREFIX))
        .count();
    let wanted = config.num_class_images.saturating_sub(theirs);
    Ok((0..wanted)
        .filter(|number| !folder.join(name(*number)).is_file())
        .collect())
}

/// Removes those that a run drew into its own folder.
pub(super) fn forget(run: &Path) {
    for entry in fs::read_dir(run.join(FOLDER)).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // One that stays is an old picture, and no reason to end a run.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Where they are in a run's folder.
pub(super) const FOLDER: &str = "class-pictures";

/// What the names of those that are drawn here begin with.
const PREFIX: &str = "drawn-";

fn name(number: usize) -> String {
    format!("{PREFIX}{number:05}.png")
}
