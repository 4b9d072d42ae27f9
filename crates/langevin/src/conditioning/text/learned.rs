//! Textual inversion (Gal et al. 2022): words whose vectors were learned, in the formats that they are shared in.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{SECOND, TEXT_ENCODER};
use crate::{Error, Result, models::Checkpoint};

/// The most vectors of one word: more than a text has tokens.
const MOST_VECTORS: usize = 1024;
/// The longest word, in bytes.
const LONGEST_WORD: usize = 256;
/// What files call the vectors of Stable Diffusion XL's encoders: A1111's names, and those of diffusers' training script.
const PARTS: [(&str, &str); 4] = [
    ("clip_l", TEXT_ENCODER),
    ("clip_g", SECOND[0]),
    ("text_encoders_0", TEXT_ENCODER),
    ("text_encoders_1", SECOND[0]),
];

/// A file of learned vectors, and the word that is to stand for them in texts.
///
/// ```
/// use langevin::conditioning::EmbeddingFile;
///
/// let embedding: EmbeddingFile = "embeddings/cat.safetensors".parse()?;
/// assert_eq!(embedding.token, None);
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingFile {
    /// diffusers' `learned_embeds.safetensors` or `.bin`, A1111's `.pt` or `.safetensors`.
    pub path: PathBuf,
    /// The word; `None` for the one that the file names, or else the file's own name.
    pub token: Option<String>,
}

/// The endings of such files.
const ENDINGS: [&str; 4] = ["safetensors", "pt", "bin", "ckpt"];

impl EmbeddingFile {
    /// Those of a folder, by their names; what is in them is not looked at.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn in_folder(folder: &Path) -> Result<Vec<Self>> {
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
        let is_one = |path: &PathBuf| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            let is_shown = path
                .file_name()
                .is_some_and(|name| !name.to_string_lossy().starts_with('.'));
            is_shown
                && path.is_file()
                && ending.is_some_and(|ending| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
        };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(is_one)
            .collect();
        paths.sort();
        let file = |path| Self { path, token: None };
        Ok(paths.into_iter().map(file).collect())
    }

    /// Reads the file, and says how many numbers the vectors have that it holds: one width, or the two of Stable Diffusion XL's encoders.
    ///
    /// # Errors
    /// If it is of none of the formats, or what it holds is not vectors of numbers.
    pub fn widths(&self) -> Result<Vec<usize>> {
        let embedding = LearnedEmbedding::read(self)?;
        Ok(embedding.parts.iter().map(|part| part.width).collect())
    }
}

/// `FILE[:TOKEN]`, as a command line has it: a name with a colon in it that is there is a file's.
impl FromStr for EmbeddingFile {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let whole = Path::new(text).exists();
        let parts = text
            .rsplit_once(':')
            .filter(|(path, _)| !whole && Path::new(path).is_file());
        Ok(match parts {
            Some((path, token)) => Self {
                path: path.into(),
                token: Some(token.into()),
            },
            None => Self {
                path: text.into(),
                token: None,
            },
        })
    }
}

impl fmt::Display for EmbeddingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match &self.token {
            Some(token) => write!(f, ":{token}"),
            None => Ok(()),
        }
    }
}

/// What such a file holds.
#[derive(Clone, Debug)]
pub(super) struct LearnedEmbedding {
    path: PathBuf,
    /// What it is called in texts: the word that was given, or the file's own, and the file's name where A1111 goes by that.
    names: Vec<String>,
    parts: Vec<Part>,
}

/// The vectors for one text encoder.
#[derive(Clone, Debug)]
struct Part {
    key: String,
    /// The folder of the encoder; `None` where a pipeline has one.
    of: Option<&'static str>,
    width: usize,
    values: Vec<f32>,
}

impl LearnedEmbedding {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is of none of the formats, or what it holds is not vectors of numbers.
    pub(super) fn read(file: &EmbeddingFile) -> Result<Self> {
        let path = &file.path;
        let fail = |message: String| Error::file(path, message);
        let mut checkpoint = Checkpoint::open(path)?;
        let keys: Vec<String> = checkpoint.names().map(String::from).collect();
        let of = |key: &str| PARTS.iter().find(|(name, _)| *name == key).map(|(_, of)| *of);
        let is_xl = !keys.is_empty() && keys.iter().all(|key| of(key).is_some());
        let keys = match keys.as_slice() {
            [_] => keys,
            _ if is_xl => keys,
            all if all.iter().any(|key| key == EMB_PARAMS) => vec![EMB_PARAMS.into()],
            all => {
                return Err(fail(format!(
                    "holds {} tensors{}, where the file of a learned embedding holds one, or clip_l and clip_g",
                    all.len(),
                    all.first()
                        .map(|first| format!(", such as {first}"))
                        .unwrap_or_default()
                )));
            }
        };
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let names = match (&file.token, checkpoint.title()) {
            (Some(token), _) => vec![token.clone()],
            // A1111 goes by the file's name, diffusers by what the trainer called it.
            (None, Some(title)) if title != stem => vec![title, stem],
            (None, _) if is_xl || ["*", EMB_PARAMS].contains(&keys[0].as_str()) => vec![stem],
            (None, _) => vec![keys[0].clone()],
        };
        if let Some(name) = names.iter().find(|name| !is_word(name)) {
            let name: String = name.chars().take(40).collect();
            let message = format!(
                "the word for it is {name:?}, which is none: name one after a colon, as in FILE:my-word"
            );
            return Err(fail(message));
        }
        let mut parts = Vec::new();
        for key in keys {
            let shape = checkpoint
                .get(&key)
                .map(|stored| stored.shape.clone())
                .unwrap_or_default();
            let (count, width) = match shape[..] {
                [width] => (1, width),
                [count, width] => (count, width),
                _ => (0, 0),
            };
            if count == 0 || width == 0 || count > MOST_VECTORS {
                return Err(fail(format!(
                    "{key} has shape {shape:?}, where a learned embedding has 1 to {MOST_VECTORS} vectors: [width] or [count, width]"
                )));
            }
            let values = checkpoint.read(&key)?;
            if values.iter().any(|value| !value.is_finite()) {
                return Err(fail(format!(
                    "{key} holds what is not numbers: its training went wrong"
                )));
            }
            let of = if is_xl { of(&key) } else { None };
            parts.push(Part {
                key,
                of,
                width,
                values,
            });
        }
        if parts.windows(2).any(|pair| pair[0].count() != pair[1].count()) {
            return Err(fail(
                "has more vectors for one text encoder than for the other".into(),
            ));
        }
        Ok(Self {
            path: path.clone(),
            names,
            parts,
        })
    }

    /// Vectors that are being learned under a word: for each text encoder its folder, the vectors' width and their numbers.
    ///
    /// # Errors
    /// If it is no word, or there are none or too many.
    pub(super) fn of(word: &str, parts: Vec<(&'static str, usize, Vec<f32>)>) -> Result<Self> {
        if !is_word(word) {
            let word: String = word.chars().take(40).collect();
            return Err(Error::option(
                &["placeholder_token"],
                format!(
                    "`placeholder_token` is {word:?}: a word has 1 to {LONGEST_WORD} bytes, no blank at its ends, and nothing unseen"
                ),
            ));
        }
        let counts = |(_, width, values): &(&str, usize, Vec<f32>)| values.len() / width;
        if parts
            .iter()
            .map(counts)
            .any(|count| count == 0 || count > MOST_VECTORS)
        {
            return Err(Error::option(
                &["num_vectors"],
                format!("`num_vectors` must be from 1 to {MOST_VECTORS}"),
            ));
        }
        let is_xl = parts.len() > 1;
        let part = |(folder, width, values): (&'static str, usize, Vec<f32>)| Part {
            key: word.to_string(),
            of: is_xl.then_some(folder),
            width,
            values,
        };
        Ok(Self {
            path: PathBuf::from(word),
            names: vec![word.to_string()],
            parts: parts.into_iter().map(part).collect(),
        })
    }

    /// Whether its vectors are for one text encoder, without saying which.
    pub(super) fn is_of_one(&self) -> bool {
        self.parts.iter().all(|part| part.of.is_none())
    }

    /// The word for it, the first where there are two.
    pub(super) fn word(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Why it does not do alone.
    pub(super) fn is_part(&self) -> Error {
        let message = format!(
            "teaches `{}` to one of the model's text encoders, and there are two: the other's file has to be named beside it",
            self.word()
        );
        Error::file(&self.path, message)
    }

    /// Refuses vectors for two text encoders where a model has one.
    ///
    /// # Errors
    /// If the file has some.
    pub(super) fn check_parts(&self, is_xl: bool) -> Result<()> {
        match self.is_of_one() {
            false if !is_xl => Err(Error::file(
                &self.path,
                format!(
                    "holds vectors for the two text encoders of Stable Diffusion XL ({}), and this model has one of another kind",
                    self.widths()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The vectors for the encoder of this folder, whose vectors have so many numbers.
    ///
    /// # Errors
    /// If there are none, or they have another width.
    pub(super) fn vectors_for(&self, encoder: &str, width: usize) -> Result<Vec<f32>> {
        let fits = |part: &&Part| part.of.is_none_or(|of| of == encoder) && part.width == width;
        match self.parts.iter().find(fits) {
            Some(part) => Ok(part.values.clone()),
            None => Err(Error::file(
                &self.path,
                format!(
                    "holds vectors of {}, and the model's {encoder} takes vectors of {width}: it was learned for another kind of model",
                    self.widths()
                ),
            )),
        }
    }

    /// The widths of its vectors, in words.
    fn widths(&self) -> String {
        let part = |part: &Part| match part.of {
            Some(_) => format!("{} numbers in {}", part.width, part.key),
            None => format!("{} numbers", part.width),
        };
        self.parts.iter().map(part).collect::<Vec<_>>().join(" and ")
    }
}

/// Whether a text may stand for learned vectors.
fn is_word(name: &str) -> bool {
    name.trim() == name
        && !name.is_empty()
        && name.len() <= LONGEST_WORD
        && !name.chars().any(char::is_control)
}

impl Part {
    fn count(&self) -> usize {
        self.values.len() / self.width
    }
}

/// What A1111's safetensors files call the vectors.
const EMB_PARAMS: &str = "emb_params";

/// The learned words of one text encoder.
#[derive(Clone, Debug, Default)]
pub(super) struct Learned {
    /// The longest first, so that `cat_1` is not `cat`.
    words: Vec<Word>,
}

/// A word, and the numbers of its tokens.
#[derive(Clone, Debug)]
struct Word {
    text: String,
    /// Of the word as ordinary text, which is how A1111 finds it; none of a part of one.
    tokens: Vec<u32>,
    ids: Range<u32>,
    path: PathBuf,
}

impl Learned {
    /// Adds the words of a file, whose tokens are so many from `first` on: of several, each is a word too, called `word`, `word_1` and so
    /// on, as diffusers calls them, and `word` stands for all.
    ///
    /// # Errors
    /// If one is another file's already.
    pub(super) fn add(
        &mut self,
        embedding: &LearnedEmbedding,
        first: u32,
        count: usize,
        tokens: &dyn Fn(&str) -> Result<Vec<u32>>,
    ) -> Result<()> {
        let count = count as u32;
        for name in &embedding.names {
            let singles = (1..count).map(|k| (format!("{name}_{k}"), first + k..first + k + 1));
            for (text, ids) in std::iter::once((name.clone(), first..first + count)).chain(singles) {
                let same = |word: &&Word| word.text.eq_ignore_ascii_case(&text);
                if let Some(word) = self.words.iter().find(same) {
                    return Err(Error::file(
                        &embedding.path,
                        format!(
                            "the word for it, `{text}`, is that of {} already: name another after a colon, as in FILE:my-word",
                            word.path.display()
                        ),
                    ));
                }
                let tokens = if text == *name { tokens(&text)? } else { Vec::new() };
                self.words.push(Word {
                    text,
                    tokens,
                    ids,
                    path: embedding.path.clone(),
                });
            }
        }
        self.words.sort_by_key(|word| std::cmp::Reverse(word.text.len()));
        Ok(())
    }

    /// Where learned words stand in a text, and their tokens.
    pub(super) fn words<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = (Range<usize>, Range<u32>)> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            while !self.words.is_empty() && at < text.len() {
                if let Some(word) = self.at(text, at) {
                    let place = at..at + word.text.len();
                    at = place.end;
                    return Some((place, word.ids.clone()));
                }
                at += text[at..].chars().next().map_or(1, char::len_utf8);
            }
            None
        })
    }

    /// The word whose own tokens these begin with, the longest first: how many those are, and what stands for it.
    pub(super) fn at_tokens(&self, tokens: &[u32]) -> Option<(usize, Range<u32>)> {
        let begins = |word: &&Word| !word.tokens.is_empty() && tokens.starts_with(&word.tokens);
        let word = self
            .words
            .iter()
            .filter(begins)
            .max_by_key(|word| word.tokens.len())?;
        Some((word.tokens.len(), word.ids.clone()))
    }

    /// All words, but for those that stand for a part of another's vectors.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let whole = self.words.iter().filter(|word| !word.tokens.is_empty());
        whole.map(|word| word.text.as_str())
    }

    /// The files whose words stand in a text.
    pub(super) fn files<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a Path> {
        let of = |(_, ids): (Range<usize>, Range<u32>)| {
            let word = self.words.iter().find(|word| word.ids == ids)?;
            Some(word.path.as_path())
        };
        self.words(text).filter_map(of)
    }

    /// The word of this name.
    pub(super) fn named(&self, name: &str) -> Option<Range<u32>> {
        let word = self
            .words
            .iter()
            .find(|word| word.text.eq_ignore_ascii_case(name))?;
        Some(word.ids.clone())
    }

    /// The longest word that begins there, and is no part of a longer one of letters and digits.
    fn at(&self, text: &str, at: usize) -> Option<&Word> {
        let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let begins = |word: &Word| {
            let end = at + word.text.len();
            let here = text.get(at..end)?;
            let cut = in_word(text[..at].chars().next_back()) && in_word(here.chars().next())
                || in_word(here.chars().next_back()) && in_word(text[end..].chars().next());
            (here.eq_ignore_ascii_case(&word.text) && !cut).then_some(())
        };
        self.words.iter().find(|word| begins(word).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(words: &[(&str, usize)]) -> Result<Learned> {
        let mut learned = Learned::default();
        let mut first = 100;
        for (name, count) in words {
            let embedding = LearnedEmbedding {
                path: format!("{name}.pt").into(),
                names: vec![(*name).into()],
                parts: Vec::new(),
            };
            learned.add(&embedding, first, *count, &|_| Ok(Vec::new()))?;
            first += *count as u32;
        }
        Ok(learned)
    }

    fn found(learned: &Learned, text: &str) -> Vec<(String, Vec<u32>)> {
        let words = learned.words(text);
        words
            .map(|(place, ids)| (text[place].to_string(), ids.collect()))
            .collect()
    }

    #[test]
    fn words_are_found_whole_and_the_longest_first() {
        let all = learned(&[("<cat>", 1), ("easynegative", 3), ("art", 1)]).unwrap();
        let text = "a <cat>, EasyNegative_2 and easynegative; not artful, tart, art_1 or heart but é art!";
        assert_eq!(
            found(&all, text),
            [
                ("<cat>".into(), vec![100]),
                ("EasyNegative_2".into(), vec![103]),
                ("easynegative".into(), vec![101, 102, 103]),
                ("art".into(), vec![104]),
            ]
        );
        assert!(found(&Learned::default(), text).is_empty());
    }

    #[test]
    fn a_word_of_two_files_is_refused() {
        let message = learned(&[("style", 2), ("Style_1", 1)]).unwrap_err().to_string();
        assert!(
            message.contains("style.pt") && message.contains("Style_1.pt"),
            "{message}"
        );
    }

    #[test]
    fn a_colon_names_the_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pt");
        std::fs::write(&path, "x").unwrap();
        let text = path.display().to_string();
        let read = |text: &str| text.parse::<EmbeddingFile>().unwrap();
        assert_eq!(read(&text).token, None);
        assert_eq!(read(&format!("{text}:<x>")).token.as_deref(), Some("<x>"));
        assert_eq!(read(&format!("{text}:<x>")).path, path);
        // What is not there is a path, and reading it says so.
        assert_eq!(read("C:\\a.pt").path, Path::new("C:\\a.pt"));
        let odd = folder.path().join("a.pt:b");
        std::fs::write(&odd, "x").unwrap();
        assert_eq!(read(&odd.display().to_string()).path, odd);
        assert_eq!(read(&format!("{text}:<x>")).to_string(), format!("{text}:<x>"));
    }
}
