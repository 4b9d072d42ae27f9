//! The thread that draws: all pictures under way go a step further in turn, and new ones join as places become free.

use std::{
    cell::OnceCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use langevin::{
    Result, Size,
    generate::Animation,
    ops::in_pool,
    pipelines::{Sampling, step_together},
};

use crate::{
    events::{Event, Finished, Preview, Progress},
    metrics::{Metrics, add},
    model::Model,
    models::{Lease, Models},
    options::ServerOptions,
    queue::{Job, Queue},
};

/// Progress without pictures is told no more often than this.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How much news an event stream may be behind before previews are left out.
const PREVIEWS_BEHIND: usize = 4;

/// How much news has to fit between the worker and whoever listens to an order of `count` pictures, so that the end of it never has
/// to wait: its start, its pictures, an animation, and its end.
pub(crate) fn room(count: usize) -> usize {
    count + 3 + PREVIEWS_BEHIND
}

/// Latents of so many pixels take a place, since they take memory by their size; other pictures, which are small, take one each.
const PIXELS_OF_A_PLACE: usize = 256 * 256;

/// What the thread works with.
pub(crate) struct Worker {
    pub models: Arc<Models>,
    pub options: Arc<ServerOptions>,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
}

/// An order under way.
struct Running<'m> {
    job: Job,
    /// The number of the next picture that is to be begun.
    next: usize,
    pictures: Vec<Drawing<'m>>,
    /// Pictures that are done.
    finished: usize,
    /// Steps of finished pictures and of those under way.
    steps: usize,
    /// Steps of all pictures; known once the first is begun.
    total: usize,
    previews: usize,
    frames: Animation,
    began: Instant,
    told: Option<Instant>,
    failure: Option<String>,
}

/// A picture under way.
struct Drawing<'m> {
    number: usize,
    sampling: Sampling<'m>,
    /// How many of the places it takes.
    places: usize,
    /// Whether it draws on at a larger size what a first loop came to.
    is_second: bool,
}

impl Worker {
    /// Draws until the queue is closed and empty.
    pub(crate) fn run(&self) {
        while self.queue.wait() {
            // A panic in the library is a defect, and the orders under way are lost to it; the others are not.
            let rounds = AssertUnwindSafe(|| in_pool(|| self.rounds()));
            if catch_unwind(rounds).is_err() {
                add(&self.metrics.failed, self.queue.status().running.max(1));
                tracing::warn!("drawing failed in a way that it should not; the requests under way are lost");
            }
            self.queue.set_running(0, 0, None);
        }
    }

    /// Draws until there is nothing left to draw.
    fn rounds(&self) {
        // Models stay until all that is under way is done; whoever waits for their memory lets nothing new begin.
        let models: Vec<OnceCell<Lease>> = (0..self.models.len()).map(|_| OnceCell::new()).collect();
        let mut running: Vec<Running<'_>> = Vec::new();
        loop {
            self.forget_the_gone(&mut running);
            self.admit(&mut running, &models);
            let pictures = running.iter().map(|order| order.pictures.len()).sum();
            let seconds_left = running.iter().filter_map(Running::seconds_left).reduce(f64::min);
            self.queue.set_running(running.len(), pictures, seconds_left);
            if running.is_empty() {
                return;
            }
            for model in 0..self.models.len() {
                self.step(model, &mut running);
            }
            for order in &mut running {
                self.tell(order);
                self.finish_pictures(order, &models);
            }
            running.retain_mut(|order| !self.is_over(order));
        }
    }

    fn forget_the_gone(&self, running: &mut Vec<Running<'_>>) {
        running.retain(|order| {
            let gone = order.job.events.is_closed();
            if gone {
                add(&self.metrics.cancelled, 1);
            }
            !gone
        });
    }

    /// Begins pictures while there are places: those of orders under way first, then those that wait.
    fn admit<'m>(&self, running: &mut Vec<Running<'m>>, models: &'m [OnceCell<Lease>]) {
        let mut places = self.options.batch_size.max(1);
        let taken = running.iter().flat_map(|order| &order.pictures);
        places = places.saturating_sub(taken.map(|picture| picture.places).sum());
        let mut at = 0;
        while places > 0 {
            if at == running.len() {
                let Some(job) = self.queue.next() else {
                    return;
                };
                running.push(Running::new(job));
            }
            let order = &mut running[at];
            while places > 0 && order.next < order.job.order.count && order.failure.is_none() {
                let order_model = &order.job.order.model;
                let model = models[order.job.order.number].get_or_init(|| order_model.clone());
                places = places.saturating_sub(self.begin(order, model));
            }
            at += 1;
        }
    }

    /// Begins the next picture of an order; the places that it takes.
    fn begin<'m>(&self, order: &mut Running<'m>, model: &'m Model) -> usize {
        let number = order.next;
        order.next += 1;
        let begun = order.job.order.start(model, number);
        let begun = begun.and_then(|sampling| {
            if order.job.animated {
                order.frames.begin(&sampling)?;
            }
            Ok(sampling)
        });
        match begun {
            Ok(sampling) => {
                let plan = &order.job.order.plan;
                order.total = plan.steps_of_all_passes(sampling.total()) * order.job.order.count;
                let places = places(model, order.job.order.size);
                order.pictures.push(Drawing {
                    number,
                    sampling,
                    places,
                    is_second: false,
                });
                places
            }
            Err(error) => {
                order.failure = Some(error.to_string());
                0
            }
        }
    }

    /// Takes all pictures of a model a step further, together.
    fn step(&self, model: usize, running: &mut [Running<'_>]) {
        let orders = || 0..running.len();
        let of_model = |&place: &usize| {
            let order = &running[place];
            order.job.order.number == model && order.failure.is_none()
        };
        let places: Vec<usize> = orders()
            .filter(of_model)
            .flat_map(|place| std::iter::repeat_n(place, running[place].pictures.len()))
            .collect();
        if places.is_empty() {
            return;
        }
        let mut loops: Vec<&mut Sampling<'_>> = running
            .iter_mut()
            .filter(|order| order.job.order.number == model && order.failure.is_none())
            .flat_map(|order| order.pictures.iter_mut().map(|picture| &mut picture.sampling))
            .collect();
        let results = step_together(&mut loops);
        add(&self.metrics.rounds, 1);
        add(&self.metrics.steps, results.len());
        for (place, result) in places.into_iter().zip(results) {
            let order = &mut running[place];
            match result {
                Ok(()) => order.steps += 1,
                Err(error) => order.failure = Some(error.to_string()),
            }
        }
    }

    /// Tells how far an order is, with pictures now and then, unless whoever listens is behind.
    fn tell(&self, order: &mut Running<'_>) {
        if order.failure.is_some() {
            return;
        }
        if order.job.animated
            && let Err(error) = order.show()
        {
            order.failure = Some(error.to_string());
            return;
        }
        let left = order.job.order.count - order.finished + 2;
        if order.job.order.previews == 0 || order.job.events.capacity() <= left {
            return;
        }
        let shown = order.steps * order.job.order.previews / order.total.max(1);
        let is_shown = shown > order.previews;
        let is_due = order.told.is_none_or(|told| told.elapsed() >= PROGRESS_EVERY);
        if !is_shown && !is_due {
            return;
        }
        order.previews = shown;
        order.told = Some(Instant::now());
        let previews = if is_shown {
            order.previews()
        } else {
            Ok(Vec::new())
        };
        let seconds_left = order.seconds_left().unwrap_or_default();
        match previews {
            Ok(previews) => order.send(Event::Progress(Progress {
                done: order.steps,
                total: order.total,
                seconds_left,
                previews,
            })),
            Err(error) => order.failure = Some(error.to_string()),
        }
    }

    /// Hands out the pictures that have no step left; those that have a second pass begin it.
    fn finish_pictures<'m>(&self, order: &mut Running<'m>, models: &'m [OnceCell<Lease>]) {
        let model = order.job.order.model.clone();
        let (done, under_way): (Vec<_>, Vec<_>) = std::mem::take(&mut order.pictures)
            .into_iter()
            .partition(|picture| picture.sampling.done() == picture.sampling.total());
        order.pictures = under_way;
        for Drawing {
            number,
            sampling,
            is_second,
            ..
        } in done
        {
            let plan = &order.job.order.plan;
            let samples = sampling.finish();
            if plan.has_second_pass() && !is_second {
                let shared: &'m Model = models[order.job.order.number].get_or_init(|| model.clone());
                let second =
                    samples.and_then(|samples| plan.go_on(&shared.pipeline, samples, number..number + 1));
                match second {
                    Ok(sampling) => order.pictures.push(Drawing {
                        number,
                        places: places(shared, order.job.order.size),
                        sampling,
                        is_second: true,
                    }),
                    Err(error) => order.failure = Some(error.to_string()),
                }
                continue;
            }
            let picture = samples.and_then(|samples| plan.pictures(&model.pipeline, samples));
            let seed = order.job.order.seed_of(number);
            let picture = picture.and_then(|(pictures, flags)| {
                let Some((picture, flagged)) = pictures.into_iter().zip(flags).next() else {
                    return Ok(None);
                };
                let sounding = order.job.order.sounding.as_ref();
                let sound = sounding
                    .map(|sounding| sounding.sound(&picture, seed))
                    .transpose()?;
                Ok(Some((picture, flagged, sound)))
            });
            match picture {
                Ok(Some((picture, flagged, sound))) => {
                    order.finished += 1;
                    add(&self.metrics.pictures, 1);
                    order.send(Event::Finished(Finished {
                        number,
                        seed,
                        sound,
                        class: order.job.order.class_name(&model, number),
                        picture,
                        flagged,
                        texts: match self.options.no_metadata {
                            true => Vec::new(),
                            false => order.job.order.texts(&model, number),
                        },
                    }));
                }
                Ok(None) => order.failure = Some("the sample holds no picture".into()),
                Err(error) => order.failure = Some(error.to_string()),
            }
        }
    }

    /// Whether an order has come to its end, of which whoever asked is told.
    fn is_over(&self, order: &mut Running<'_>) -> bool {
        let count = order.job.order.count;
        if order.finished == count && order.failure.is_none() && order.job.animated {
            let frames = std::mem::take(&mut order.frames);
            order.send(Event::Animation(Box::new(frames)));
        }
        if let Some(failure) = order.failure.take() {
            add(&self.metrics.failed, 1);
            order.send(Event::Failed(failure));
            return true;
        }
        if order.finished < count {
            return false;
        }
        self.metrics.order(order.job.since.elapsed().as_secs_f64());
        let seconds = order.began.elapsed().as_secs_f64();
        self.queue.set_drawn(order.began);
        order.send(Event::Done(seconds));
        true
    }
}

/// How many places a picture of this size takes, from the first step of its first pass on. A spectrogram is as wide as its sound is long.
fn places(model: &Model, size: Size) -> usize {
    if !model.pipeline.codec().is_latent() && model.pipeline.mel().is_none() {
        return 1;
    }
    (size.height * size.width).div_ceil(PIXELS_OF_A_PLACE)
}

impl Running<'_> {
    fn new(job: Job) -> Self {
        let order = Self {
            job,
            next: 0,
            pictures: Vec::new(),
            finished: 0,
            steps: 0,
            total: 0,
            previews: 0,
            frames: Animation::default(),
            began: Instant::now(),
            told: None,
            failure: None,
        };
        order.send(Event::Started);
        order
    }

    /// Sends news. There is room for all that must arrive; where nobody listens any more, the next round finds that out.
    fn send(&self, event: Event) {
        let _ = self.job.events.try_send(event);
    }

    /// How long the rest will take at the pace so far; `None` before the first step.
    fn seconds_left(&self) -> Option<f64> {
        let pace = self.began.elapsed().as_secs_f64() / self.steps as f64;
        (self.steps > 0).then(|| pace * self.total.saturating_sub(self.steps) as f64)
    }

    fn previews(&self) -> Result<Vec<Preview>> {
        let mut previews = Vec::with_capacity(self.pictures.len());
        for picture in &self.pictures {
            let Some(step) = picture.sampling.latest() else {
                continue;
            };
            let (samples, cleans) = (step.pictures()?, step.clean_pictures()?);
            previews.extend(samples.into_iter().zip(cleans).map(|(sample, clean)| Preview {
                number: picture.number,
                step: step.index + 1,
                sample,
                clean,
            }));
        }
        Ok(previews)
    }

    /// Takes the step that was just done into the animation.
    fn show(&mut self) -> Result<()> {
        for picture in &self.pictures {
            if let Some(step) = picture.sampling.latest() {
                self.frames.show(&step)?;
            }
        }
        Ok(())
    }
}
