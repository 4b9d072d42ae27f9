//! Classifier-free guidance: away from what the model would draw untold, towards what it is told (Ho and Salimans 2022).

use std::{fmt, str::FromStr};

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    conditioning::{Parts, Texts},
    models::{Conditioning, Denoiser},
};

/// How far classifier-free guidance goes, and when.
///
/// A scale of 1 leaves the model alone and costs nothing; more draws what is asked for more clearly and with less variety. The rescale
/// is of the conditional prediction's standard deviation (Lin et al. 2024, section 3.4); 0.7 takes the glare from pictures at high scales.
// Brackets hold defaults.
#[allow(rustdoc::broken_intra_doc_links)]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ClassifierFree {
    /// How many times as far towards what is asked for as the model goes by itself: 1 is no guidance, 3 is much [1; Stable Diffusion:
    /// 7.5, XL: 5].
    #[serde(rename = "guidance_scale")]
    #[cfg_attr(
        feature = "clap",
        arg(
            long = "guidance-scale",
            id = "guidance_scale",
            value_name = "SCALE",
            allow_negative_numbers = true,
            help_heading = "Guidance"
        )
    )]
    #[cfg_attr(feature = "schema", schemars(range(min = -1000, max = 1000), extend("x-needs" = "guidance")))]
    pub scale: Option<f64>,
    /// How much of the unguided contrast is given back, 0 to 1 [0].
    #[serde(rename = "guidance_rescale")]
    #[cfg_attr(
        feature = "clap",
        arg(
            long = "guidance-rescale",
            id = "guidance_rescale",
            value_name = "PART",
            help_heading = "Guidance"
        )
    )]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1), extend("x-needs" = "guidance")))]
    pub rescale: f64,
    /// The timesteps to guide at, such as 200:800, or fractions of the schedule, such as 0.2:0.8 [all].
    #[serde(rename = "guidance_interval")]
    #[cfg_attr(
        feature = "clap",
        arg(
            long = "guidance-interval",
            id = "guidance_interval",
            value_name = "LOW:HIGH",
            help_heading = "Guidance"
        )
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "guidance")))]
    pub interval: Option<Interval>,
}

impl Default for ClassifierFree {
    fn default() -> Self {
        Self {
            scale: None,
            rescale: 0.0,
            interval: None,
        }
    }
}

impl ClassifierFree {
    /// Guidance of this scale at every timestep.
    pub fn of_scale(scale: f64) -> Self {
        Self {
            scale: Some(scale),
            ..Self::default()
        }
    }

    /// The scale: none, which is 1, where nobody says.
    pub fn scale(&self) -> f64 {
        self.scale.unwrap_or(1.0)
    }

    /// Whether it changes anything.
    pub fn is_on(&self) -> bool {
        self.scale() != 1.0
    }

    /// Refuses settings that do nothing, since nothing is guided.
    pub(crate) fn check_idle(&self) -> Result<()> {
        let settings: [(&'static [&'static str], bool); 2] = [
            (&["guidance_rescale", "guidance_scale"], self.rescale != 0.0),
            (&["guidance_interval", "guidance_scale"], self.interval.is_some()),
        ];
        match settings.into_iter().find(|(_, given)| *given && !self.is_on()) {
            Some((options, _)) => Err(Error::option(
                options,
                format!(
                    "`{}` does nothing without guidance: add `guidance_scale`",
                    options[0]
                ),
            )),
            None => Ok(()),
        }
    }

    /// Refuses numbers that make no sense.
    fn check(&self) -> Result<()> {
        if !self.scale().is_finite() {
            return Err(Error::Config(format!(
                "the guidance scale is {}, but it must be a number; 1 guides nothing",
                self.scale()
            )));
        }
        if !(0.0..=1.0).contains(&self.rescale) {
            return Err(Error::Config(format!(
                "the guidance rescale is {}, but it must be between 0 and 1",
                self.rescale
            )));
        }
        Ok(())
    }
}

/// The part of the noise schedule in which to guide (Kynkäänniemi et al. 2024): guiding in the middle alone keeps the variety
/// that the noisiest steps decide about, and spares the cost where guidance no longer shows.
///
/// ```
/// use langevin::guidance::Interval;
///
/// assert_eq!("200:800".parse::<Interval>()?, Interval::Timesteps { low: 200.0, high: 800.0 });
/// assert_eq!("0.2:0.8".parse::<Interval>()?, Interval::Fractions { low: 0.2, high: 0.8 });
/// # Ok::<(), langevin::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Interval {
    /// From one timestep to another, both within.
    Timesteps {
        /// The cleanest.
        low: f64,
        /// The noisiest.
        high: f64,
    },
    /// The same in fractions of the training schedule, from 0 (clean) to 1 (noise).
    Fractions {
        /// The cleanest.
        low: f64,
        /// The noisiest.
        high: f64,
    },
}

impl Interval {
    /// The lowest and the highest timestep, of a schedule of `num_train_timesteps`.
    fn bounds(self, num_train_timesteps: usize) -> (f64, f64) {
        match self {
            Self::Timesteps { low, high } => (low, high),
            Self::Fractions { low, high } => {
                let all = num_train_timesteps as f64;
                (low * all, high * all)
            }
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timesteps { low, high } | Self::Fractions { low, high } => write!(f, "{low}:{high}"),
        }
    }
}

impl TryFrom<String> for Interval {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

impl FromStr for Interval {
    type Err = Error;

    /// Reads `LOW:HIGH`; numbers up to 1 are fractions.
    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number >= 0.0);
        let bounds = text
            .split_once(':')
            .and_then(|(low, high)| number(low).zip(number(high)));
        match bounds {
            Some((low, high)) if low <= high && high <= 1.0 => Ok(Self::Fractions { low, high }),
            Some((low, high)) if low <= high => Ok(Self::Timesteps { low, high }),
            _ => Err(Error::Config(format!(
                "`{text}` is not a guidance interval: it goes from a low to a high timestep, as in 200:800, or in fractions of the \
                 schedule, as in 0.2:0.8"
            ))),
        }
    }
}

/// A model that is guided towards its conditioning and away from another, which is usually none: the null class, an empty
/// prompt. Told and untold are one batch of twice the size; where nothing is to be guided the model is asked once, plainly.
#[derive(Clone, Debug)]
pub struct Guided<D> {
    denoiser: D,
    negative: Conditioning,
    scale: f64,
    rescale: f64,
    /// The lowest and the highest timestep to guide at.
    bounds: (f64, f64),
    /// What stands between the two, and how far it leads away from the negative.
    between: Option<(Conditioning, f64)>,
    /// Several things that are led towards at once.
    parts: Option<Parts>,
}

impl<D: Denoiser> Guided<D> {
    /// Guides `denoiser` away from `negative`, which says as much of each picture as the conditioning that it will be given.
    /// `num_train_timesteps` is the schedule's, which an interval's fractions are of.
    ///
    /// # Errors
    /// If a number makes no sense.
    pub fn new(
        denoiser: D,
        negative: Conditioning,
        guidance: ClassifierFree,
        num_train_timesteps: usize,
    ) -> Result<Self> {
        guidance.check()?;
        let bounds = match guidance.interval {
            Some(interval) => interval.bounds(num_train_timesteps),
            None => (f64::NEG_INFINITY, f64::INFINITY),
        };
        Ok(Self {
            denoiser,
            negative,
            scale: guidance.scale(),
            rescale: guidance.rescale,
            bounds,
            between: None,
            parts: None,
        })
    }

    /// The same towards several things at once, each with a weight of its own.
    ///
    /// # Errors
    /// If something stands between.
    pub(crate) fn with_parts(self, parts: Option<Parts>) -> Result<Self> {
        if parts.is_some() && self.between.is_some() {
            return Err(Error::option(
                &["prompt"],
                "`AND`, or a weight for the whole text, does not go together with a picture that is edited by instructions",
            ));
        }
        Ok(Self { parts, ..self })
    }

    /// Puts other texts in the place of those that there are.
    pub(crate) fn turn(&mut self, texts: &Texts) {
        self.negative = texts.away.clone().and(self.negative.clone());
        if let Some(parts) = &mut self.parts {
            let turned = texts.also.iter().zip(&mut parts.also);
            turned.for_each(|(text, also)| *also = text.clone().and(also.clone()));
        }
    }

    /// The same with a step between: away from the negative to `between` by a scale of its own, and from there to the conditioning
    /// (InstructPix2Pix, Brooks et al. 2023, eq. 3, where `between` has the picture and not the text).
    pub fn with_between(self, between: Conditioning, scale: f64) -> Self {
        Self {
            between: Some((between, scale)),
            ..self
        }
    }

    /// What is guided.
    pub(crate) fn denoiser(&self) -> &D {
        &self.denoiser
    }

    /// Each picture's scale: 1 outside the interval.
    fn scales(&self, timesteps: &Tensor<1>) -> Result<Vec<f32>> {
        let timesteps = timesteps.to_data().convert::<f32>();
        let timesteps = timesteps
            .as_slice::<f32>()
            .map_err(|e| Error::Shape(format!("the timesteps cannot be read: {e:?}")))?;
        let (low, high) = self.bounds;
        let scale = |&t: &f32| {
            if (low..=high).contains(&f64::from(t)) {
                self.scale as f32
            } else {
                1.0
            }
        };
        Ok(timesteps.iter().map(scale).collect())
    }
}

/// What a model is asked for one prediction of a loop: one batch, or told and untold as one of twice the size.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// `[rows, channels, height, width]`.
    pub x: Tensor<4>,
    /// `[rows]`.
    pub timesteps: Tensor<1>,
    /// Of as many rows.
    pub conditioning: Conditioning,
    /// Each picture's guidance scale, `[batch, 1, 1, 1]`; `None` where the answer is the prediction.
    scales: Option<Tensor<4>>,
    /// The same of each of several things that are led towards at once, in place of those.
    parts: Vec<Tensor<4>>,
}

impl Question {
    /// What a model that is not guided is asked.
    pub(crate) fn plain(x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Self {
        Self {
            x,
            timesteps,
            conditioning: conditioning.clone(),
            scales: None,
            parts: Vec::new(),
        }
    }

    /// How many times its rows are the pictures of the loop: what is asked for is the last of the parts.
    pub(crate) fn parts(&self) -> usize {
        let [rows, ..] = self.x.dims();
        match &self.scales {
            Some(scales) => rows / scales.dims()[0].max(1),
            None => 1,
        }
    }
}

impl<D: Denoiser> Guided<D> {
    /// What the model is to be asked for a prediction.
    pub(crate) fn question(
        &self,
        x: Tensor<4>,
        timesteps: Tensor<1>,
        conditioning: &Conditioning,
    ) -> Result<Question> {
        let scales = self.scales(&timesteps)?;
        if self.parts.is_none() && scales.iter().all(|&scale| scale == 1.0) {
            return Ok(Question::plain(x, timesteps, conditioning));
        }
        let [batch, ..] = x.dims();
        let column =
            |numbers: Vec<f32>| Tensor::from_data(TensorData::new(numbers, [batch, 1, 1, 1]), &x.device());
        if let Some(parts) = &self.parts {
            let mut all = self.negative.followed_by(conditioning)?;
            for also in &parts.also {
                all = all.followed_by(&also.clone().and(conditioning.clone()))?;
            }
            let weighted = parts.weights.iter().map(|weights| {
                let both = scales.iter().zip(weights);
                column(both.map(|(scale, weight)| scale * *weight as f32).collect())
            });
            let copies = parts.also.len() + 2;
            return Ok(Question {
                parts: weighted.collect(),
                scales: Some(column(scales.clone())),
                x: Tensor::cat(vec![x.clone(); copies], 0),
                timesteps: Tensor::cat(vec![timesteps; copies], 0),
                conditioning: all,
            });
        }
        let scales = column(scales);
        let parts = if self.between.is_some() { 3 } else { 2 };
        let all = match &self.between {
            Some((between, _)) => self.negative.followed_by(between)?.followed_by(conditioning)?,
            None => self.negative.followed_by(conditioning)?,
        };
        Ok(Question {
            x: Tensor::cat(vec![x; parts], 0),
            timesteps: Tensor::cat(vec![timesteps; parts], 0),
            conditioning: all,
            scales: Some(scales),
            parts: Vec::new(),
        })
    }

    /// The guided prediction that the model's answer makes.
    pub(crate) fn prediction(&self, question: &Question, answer: Tensor<4>) -> Tensor<4> {
        let Some(scales) = question.scales.clone() else {
            return answer;
        };
        let ([rows, channels, ..], batch) = (question.x.dims(), scales.dims()[0]);
        let negative = answer.clone().narrow(0, 0, batch);
        let between = answer.clone().narrow(0, batch, batch);
        let others = answer.clone();
        let told = answer.narrow(0, rows - batch, batch);

        // What a model says of its variance, in channels behind the picture's, is not guided.
        let [_, all, ..] = told.dims();
        let pictures = channels.min(all);
        let (negative, mean) = (
            negative.narrow(1, 0, pictures),
            told.clone().narrow(1, 0, pictures),
        );
        let guided = match &self.between {
            _ if !question.parts.is_empty() => {
                let each = question.parts.iter().enumerate().map(|(place, scales)| {
                    let own = others
                        .clone()
                        .narrow(0, (place + 1) * batch, batch)
                        .narrow(1, 0, pictures);
                    (own - negative.clone()) * scales.clone()
                });
                each.fold(negative.clone(), |sum, more| sum + more)
            }
            Some((_, scale)) => {
                let between = between.narrow(1, 0, pictures);
                negative.clone() + (mean.clone() - between.clone()) * scales + (between - negative) * *scale
            }
            None => negative.clone() + (mean.clone() - negative) * scales,
        };
        let guided = rescaled(guided, mean, self.rescale);
        if all > pictures {
            Tensor::cat(vec![guided, told.narrow(1, pictures, all - pictures)], 1)
        } else {
            guided
        }
    }
}

impl<D: Denoiser> Denoiser for Guided<D> {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let question = self.question(x, timesteps, conditioning)?;
        let Question {
            x,
            timesteps,
            conditioning,
            ..
        } = &question;
        let answer = self
            .denoiser
            .denoise(x.clone(), timesteps.clone(), conditioning)?;
        Ok(self.prediction(&question, answer))
    }
}

/// The guided prediction with the told one's standard deviation, to the part `rescale` (Lin et al. 2024, eq. 15 and 16).
/// Mirrors diffusers' `rescale_noise_cfg`.
fn rescaled(guided: Tensor<4>, told: Tensor<4>, rescale: f64) -> Tensor<4> {
    if rescale == 0.0 {
        return guided;
    }
    let shape = guided.dims();
    let deviation = |x: Tensor<4>| {
        let [batch, channels, height, width] = shape;
        x.reshape([batch, channels * height * width])
            .var(1)
            .sqrt()
            .reshape([batch, 1, 1, 1])
    };
    let factor = deviation(told) / deviation(guided.clone());
    guided * (factor * rescale + (1.0 - rescale))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use burn::tensor::{Device, Int};

    use super::*;

    /// Predicts each picture's class, and a variance of its own in a second channel if asked to; remembers its batches.
    #[derive(Debug, Default)]
    struct Classes {
        with_variance: bool,
        batches: Mutex<Vec<usize>>,
    }

    impl Denoiser for Classes {
        fn denoise(&self, x: Tensor<4>, _: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
            let [batch, ..] = x.dims();
            self.batches.lock().unwrap().push(batch);
            let classes = conditioning
                .classes
                .clone()
                .unwrap()
                .float()
                .reshape([batch, 1, 1, 1]);
            // Off its mean, so that there is a deviation to rescale.
            let prediction = (x + 1.0) * classes;
            Ok(if self.with_variance {
                Tensor::cat(vec![prediction.clone(), prediction], 1)
            } else {
                prediction
            })
        }
    }

    fn told(classes: [i64; 2]) -> Conditioning {
        Conditioning {
            classes: Some(Tensor::<1, Int>::from_data(classes, &Device::default())),
            ..Conditioning::default()
        }
    }

    fn guided(model: &Classes, guidance: ClassifierFree, t: [f32; 2]) -> Vec<f32> {
        let device = Device::default();
        let x = Tensor::<1>::from_data([0.0, 1.0, 2.0, 3.0], &device).reshape([2, 1, 1, 2]);
        Guided::new(model, told([1, 1]), guidance, 1000)
            .unwrap()
            .denoise(x, Tensor::from_data(t, &device), &told([2, 3]))
            .unwrap()
            .into_data()
            .try_into_vec()
            .unwrap()
    }

    #[test]
    fn the_prediction_goes_further_the_way_of_the_class() {
        let model = Classes::default();
        // 1 + 3 (2 - 1) = 4 and 1 + 3 (3 - 1) = 7 times the sample and one.
        let found = guided(&model, ClassifierFree::of_scale(3.0), [10.0, 10.0]);
        assert_eq!(found, [4.0, 8.0, 21.0, 28.0]);
        assert_eq!(*model.batches.lock().unwrap(), [4]);
    }

    #[test]
    fn scale_one_asks_once() {
        let model = Classes::default();
        assert_eq!(
            guided(&model, ClassifierFree::default(), [10.0, 10.0]),
            [2.0, 4.0, 9.0, 12.0]
        );
        assert_eq!(*model.batches.lock().unwrap(), [2]);
    }

    #[test]
    fn outside_the_interval_the_model_is_alone() {
        let model = Classes::default();
        let within = |interval: &str, t| {
            let interval = Some(interval.parse().unwrap());
            guided(
                &model,
                ClassifierFree {
                    interval,
                    ..ClassifierFree::of_scale(3.0)
                },
                t,
            )
        };
        assert_eq!(within("200:400", [500.0, 100.0]), [2.0, 4.0, 9.0, 12.0]);
        assert_eq!(within("200:400", [400.0, 500.0]), [4.0, 8.0, 9.0, 12.0]);
        assert_eq!(within("0.2:0.4", [500.0, 200.0]), [2.0, 4.0, 21.0, 28.0]);
        assert_eq!(*model.batches.lock().unwrap(), [2, 4, 4]);
    }

    #[test]
    fn rescaling_gives_the_deviation_back_as_in_diffusers() {
        // rescale_noise_cfg(noise_cfg, noise_pred_text, guidance_rescale=r) with the numbers of the first test: the guided
        // prediction is 2 and 7/3 times the told one, and so is its deviation.
        let model = Classes::default();
        let rescaled = |rescale| {
            let guidance = ClassifierFree {
                rescale,
                ..ClassifierFree::of_scale(3.0)
            };
            guided(&model, guidance, [10.0, 10.0])
        };
        let near = |found: Vec<f32>, expected: [f32; 4]| {
            let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            assert!(off.fold(0.0, f32::max) < 1e-5, "{found:?}");
        };
        near(rescaled(1.0), [2.0, 4.0, 9.0, 12.0]);
        near(rescaled(0.5), [3.0, 6.0, 15.0, 20.0]);
    }

    #[test]
    fn a_variance_is_not_guided() {
        let model = Classes {
            with_variance: true,
            ..Classes::default()
        };
        let found = guided(&model, ClassifierFree::of_scale(3.0), [10.0, 10.0]);
        assert_eq!(found, [4.0, 8.0, 2.0, 4.0, 21.0, 28.0, 9.0, 12.0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |guidance| {
            Guided::new(Classes::default(), told([0, 0]), guidance, 1000)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(ClassifierFree::of_scale(f64::NAN)).contains("NaN"));
        let guidance = ClassifierFree {
            rescale: 1.5,
            ..ClassifierFree::default()
        };
        assert!(refused(guidance).contains("between 0 and 1"));
        for text in ["", "3", "800:200", "-1:5", "a:b", "0.1:NaN"] {
            let message = text.parse::<Interval>().unwrap_err().to_string();
            assert!(message.contains("0.2:0.8"), "{message}");
        }
        let untold = Guided::new(
            Classes::default(),
            Conditioning::default(),
            ClassifierFree::of_scale(2.0),
            1000,
        )
        .unwrap();
        let device = Device::default();
        let asked = untold.denoise(
            Tensor::zeros([2, 1, 1, 2], &device),
            Tensor::zeros([2], &device),
            &told([1, 2]),
        );
        assert!(
            asked
                .unwrap_err()
                .to_string()
                .contains("told classes and the other is not")
        );
    }
}
