//! The controls of a request: which networks they mean, and what those are shown.

use burn::tensor::{Tensor, TensorData};

use super::start::{MaskCrop, Rows};
use crate::{
    Error, Request, Result, Size,
    data::{Channels, Fit, ImageInput, Picture, Preprocess},
    models::{AnyControl, Model},
    options::ControlInput,
    pipelines::{Adds, Control, Pipeline},
};

/// Loads the ControlNet or T2I-Adapter that a request calls so, which is none of the pipeline's own.
pub type ControlLoader<'a> = &'a dyn Fn(&str) -> Result<AnyControl>;

/// The networks of a request, in its order.
pub(super) struct Networks(Vec<AnyControl>);

impl Networks {
    /// Those that the request names.
    ///
    /// # Errors
    /// If there is none of a name, or one is made for another model.
    pub(super) fn of(request: &Request, pipeline: &Pipeline, load: ControlLoader<'_>) -> Result<Self> {
        let own = pipeline.controls();
        let mut unnamed = 0..own.len();
        let mut all = Vec::with_capacity(request.control.len());
        for control in &request.control {
            let network = match &control.model {
                None => {
                    let number = unnamed.next().ok_or_else(|| unnamed_control(own.len()))?;
                    own[number].clone()
                }
                Some(name) => match pipeline.control_names().position(|own| own == *name) {
                    Some(number) => own[number].clone(),
                    None => load(name)?,
                },
            };
            pipeline.check_control(&network.config())?;
            all.push(network);
        }
        Ok(Self(all))
    }
}

fn unnamed_control(own: usize) -> Error {
    let message = match own {
        0 => "the pipeline has no ControlNet of its own: `control` must name one, as in MODEL=PICTURE".into(),
        own => format!(
            "the pipeline has {own} of its own, and more pictures are given by `control`: name the others, as in MODEL=PICTURE"
        ),
    };
    Error::option(&["control"], message)
}

/// The error where a name is none of the pipeline's own and nothing is loaded.
pub(super) fn unknown(name: &str) -> Error {
    Error::option(&["control"], format!("there is no ControlNet `{name}`"))
}

/// Controls, with what their networks make of their pictures.
#[derive(Clone, Debug, Default)]
pub(super) struct Controls {
    /// With all pictures of each, which the request's pictures take in turn.
    all: Vec<Control>,
    /// The pictures that the networks are shown.
    pictures: Vec<Picture>,
}

impl Controls {
    /// Shows each network its pictures at the size of those that are drawn; where a part of a picture is painted by itself, that part
    /// of them. `usual_scale` is how strongly they lead where the request does not say.
    ///
    /// # Errors
    /// If a picture cannot be read, a number makes no sense, or a network does not fit the pipeline's sizes.
    pub(super) fn of(
        request: &Request,
        networks: Networks,
        pipeline: &Pipeline,
        size: Size,
        crop: Option<&MaskCrop>,
        usual_scale: f64,
    ) -> Result<Self> {
        let mut controls = Self::default();
        check_preprocess(request)?;
        let answers = |network: &AnyControl| matches!(network, AnyControl::ControlNet(_));
        if request.guess_mode && !networks.0.iter().any(answers) {
            return Err(Error::option(
                &["guess_mode"],
                "`guess_mode` is for ControlNets, and there are T2I-Adapters alone",
            ));
        }
        for (number, (input, network)) in request.control.iter().zip(networks.0).enumerate() {
            check(input)?;
            let bring = Bring {
                size,
                crop,
                fit: request.control_resize,
                preprocess: of_each(&request.control_preprocess, number),
            };
            let shown = controls.shown(input, &network, pipeline, &bring)?;
            controls.all.push(Control {
                scale: input.scale.unwrap_or(match &network {
                    AnyControl::ControlNet(_) => usual_scale,
                    AnyControl::T2IAdapter(_) => 1.0,
                }),
                part: [input.start, input.end],
                adds: match network {
                    AnyControl::ControlNet(network) => Adds::Answer {
                        embedded: network.embed(shown)?,
                        guess: request.guess_mode || network.config().global_pool_conditions,
                        network,
                    },
                    AnyControl::T2IAdapter(network) => Adds::Same(network.residuals(shown)?),
                },
            });
        }
        Ok(controls)
    }

    /// What a network is shown: `[count, channels, height, width]` in 0..1.
    fn shown(
        &mut self,
        input: &ControlInput,
        network: &AnyControl,
        pipeline: &Pipeline,
        bring: &Bring<'_>,
    ) -> Result<Tensor<4>> {
        if let ImageInput::Tensor(tensor) = &input.picture {
            let [_, _, height, width] = tensor.dims();
            if Size::from([height, width]) != bring.size {
                return Err(Error::Shape(format!(
                    "a control's tensor is of {width}x{height} pixels where pictures of {} are drawn",
                    bring.size
                )));
            }
            return Ok(tensor.clone() / 2.0 + 0.5);
        }
        let channels = match network.picture_channels() {
            1 => Channels::Grey,
            _ => Channels::Rgb,
        };
        let device = pipeline.model.device();
        let mut all = Vec::new();
        for picture in input.picture.read_all()? {
            let picture = bring.picture(picture)?.into_channels(channels);
            let shape = [1, picture.height(), picture.width(), picture.channels().count()];
            let values: Vec<f32> = picture.pixels().iter().map(|&v| f32::from(v) / 255.0).collect();
            let values = Tensor::<4>::from_data(TensorData::new(values, shape), &device);
            all.push(values.permute([0, 3, 1, 2]));
            self.pictures.push(picture);
        }
        Ok(Tensor::cat(all, 0))
    }

    /// Those of a batch's pictures.
    pub(super) fn of_batch(&self, batch: &Rows) -> Vec<Control> {
        let of = |control: &Control| {
            let mut control = control.clone();
            match &mut control.adds {
                Adds::Answer { embedded, .. } if embedded.dims()[0] > 1 => *embedded = batch.of(embedded),
                Adds::Same(residuals) => *residuals = residuals.rows(&batch.numbers(residuals.count())),
                Adds::Answer { .. } => {}
            }
            control
        };
        self.all.iter().map(of).collect()
    }

    /// The pictures that the networks are shown.
    pub(super) fn pictures(&self) -> &[Picture] {
        &self.pictures
    }
}

/// How a picture is brought to what its network is shown.
struct Bring<'a> {
    size: Size,
    /// The part that is cut out of it.
    crop: Option<&'a MaskCrop>,
    fit: Fit,
    preprocess: Option<&'a Preprocess>,
}

impl Bring<'_> {
    /// The picture at its size, and then what is made of it: so that edges are as sharp as they can be.
    fn picture(&self, picture: Picture) -> Result<Picture> {
        let Size { height, width } = self.size;
        let picture = match self.crop {
            Some(crop) => Fit::Inside.resize(crop.of(&picture)?, height, width)?,
            None => self.fit.resize(picture, height, width)?,
        };
        Ok(match self.preprocess {
            Some(preprocess) => preprocess.apply(picture),
            None => picture,
        })
    }
}

/// That of a control, of a list with one for all or one for each.
fn of_each(all: &[Preprocess], number: usize) -> Option<&Preprocess> {
    match all {
        [one] => Some(one),
        all => all.get(number),
    }
}

/// Refuses more or less of what is made of pictures than there are controls, where it is not the same for all.
fn check_preprocess(request: &Request) -> Result<()> {
    let (listed, controls) = (request.control_preprocess.len(), request.control.len());
    if listed <= 1 || listed == controls {
        return Ok(());
    }
    Err(Error::option(
        &["control_preprocess", "control"],
        format!(
            "`control_preprocess` is given {listed} times and `control` {controls} times: give it once for all, or once for each, with \
             none where a picture stays as it is"
        ),
    ))
}

/// Refuses numbers that make no sense.
fn check(input: &ControlInput) -> Result<()> {
    let wrong = |what: String| Err(Error::option(&["control"], what));
    if let Some(scale) = input.scale.filter(|scale| !scale.is_finite()) {
        return wrong(format!(
            "the scale of a `control` is {scale}: it must be a number"
        ));
    }
    let ControlInput { start, end, .. } = *input;
    let is_part = |number: f64| (0.0..=1.0).contains(&number);
    if !is_part(start) || !is_part(end) || start >= end {
        return wrong(format!(
            "a `control` is to lead from {start} to {end}: both are parts of the steps, from 0 to 1, and the first is the smaller"
        ));
    }
    Ok(())
}
