//! What launchers' flags, and Accelerate's configuration file, say of processes and machines.

use std::{ffi::OsString, fs, path::Path, thread::available_parallelism};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What is to be started.
#[derive(Debug, Default)]
pub(super) struct Machines {
    /// Over all machines, as Accelerate counts them.
    processes: Option<usize>,
    /// On each machine, as torchrun does.
    per_machine: Option<usize>,
    machines: Option<usize>,
    rank: Option<usize>,
    hostfile: Option<String>,
    max_restarts: Option<String>,
    /// What the file says of a step, in the words of the script's flags.
    pub(super) carried: Vec<(String, String)>,
}

/// What cannot be, with why.
const REFUSED: [(&str, &str); 7] = [
    ("--use_deepspeed", DEEPSPEED),
    ("--use_fsdp", FSDP),
    (
        "--use_megatron_lm",
        "Megatron-LM is not there: weights are whole in every process",
    ),
    (
        "--use_parallelism_config",
        "a parallelism of tensors or sequences is not there: processes share a step by its slots",
    ),
    ("--tpu", TPU),
    ("--use_tpu_cluster", TPU),
    ("--tpu_use_cluster", TPU),
];
const DEEPSPEED: &str = "DeepSpeed is not there: moments and averages are shared among processes anyway, as its stage 1 has it, and weights \
                         are whole in each";
const FSDP: &str = "FSDP is not there: moments and averages are shared among processes anyway, and weights are whole in each";
const TPU: &str = "there is no TPU here: processors train";

impl Machines {
    /// Takes a flag, if it is about machines; says what it has to say.
    ///
    /// # Errors
    /// If it asks for what cannot be, or its value is no number.
    pub(super) fn take(&mut self, name: &str, value: Option<&str>, notes: &mut Vec<String>) -> Result<()> {
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            bail!("{name}: {why}");
        }
        let Some(value) = value else {
            if name == "--multi_gpu" {
                notes.push("--multi_gpu has no meaning here: processes train on processors".into());
            }
            return Ok(());
        };
        match name {
            "--num_processes" => self.processes = Some(number(name, value)?),
            "--nproc_per_node" => self.per_machine = Some(per_machine(value)?),
            "--num_machines" => self.machines = Some(number(name, value)?),
            // As many as there are at least, where torchrun may take more.
            "--nnodes" => self.machines = Some(number(name, value.split(':').next().unwrap_or(value))?),
            "--machine_rank" | "--node_rank" => self.rank = Some(value.parse().context(name.to_string())?),
            "--mpirun_hostfile" => self.hostfile = Some(value.into()),
            "--max_restarts" if value != "0" => self.max_restarts = Some(value.into()),
            "--config_file" => self.read(Path::new(value))?,
            _ => {}
        }
        Ok(())
    }

    /// Takes what Accelerate's file says, and no flag has said yet or says later.
    fn read(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("--config_file {}", path.display()))?;
        let config: Value = serde_saphyr::from_str(&text)
            .map_err(|e| anyhow::anyhow!("{}: is no configuration: {e}", path.display()))?;
        let Value::Object(config) = config else {
            bail!(
                "{}: is no configuration: it would be keys with values, as `accelerate config` writes them",
                path.display()
            );
        };
        let word = |key: &str| match config.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        for (key, kind, why) in [
            ("distributed_type", "DEEPSPEED", DEEPSPEED),
            ("distributed_type", "FSDP", FSDP),
            ("distributed_type", "MEGATRON_LM", REFUSED[2].1),
            ("distributed_type", "XLA", TPU),
            ("distributed_type", "TPU", TPU),
            (
                "compute_environment",
                "AMAZON_SAGEMAKER",
                "SageMaker is not there: langevin runs where it is started",
            ),
        ] {
            if word(key).is_some_and(|word| word.eq_ignore_ascii_case(kind)) {
                bail!("{}: {key} {kind}: {why}", path.display());
            }
        }
        let whole = |key: &str| -> Result<Option<usize>> {
            // -1 is what a file has that nobody has filled in.
            let word = word(key).filter(|word| word != "-1");
            word.map(|word| number(key, &word)).transpose()
        };
        self.processes = self.processes.or(whole("num_processes")?);
        self.machines = self.machines.or(whole("num_machines")?);
        self.rank = self
            .rank
            .or(word("machine_rank").and_then(|rank| rank.parse().ok()));
        let hostfile = config
            .get("mpirun_config")
            .and_then(|mpirun| mpirun["mpirun_hostfile"].as_str());
        self.hostfile = self.hostfile.take().or(hostfile.map(String::from));
        let precision = word("mixed_precision").filter(|precision| precision != "no");
        self.carried
            .extend(precision.map(|precision| ("--mixed_precision".into(), precision)));
        Ok(())
    }

    /// What `langevin launch` is told before the command; nothing where one process is to be started.
    ///
    /// # Errors
    /// If there are several machines, and nobody says which.
    pub(super) fn words(&self) -> Result<Vec<OsString>> {
        let machines = self.machines.unwrap_or(1);
        let each = self.per_machine.map(|each| each.saturating_mul(machines));
        let processes = self.processes.or(each).unwrap_or(machines);
        if machines > 1 && self.hostfile.is_none() {
            let on_each = processes.div_ceil(machines);
            let where_to = match self.rank {
                Some(rank) if rank > 0 => "this line is not needed on this machine: ",
                _ => "",
            };
            bail!(
                "{where_to}{machines} machines are started by one line on one of them, with a file that names them: \
                 `langevin launch --num-processes {processes} --hostfile hosts train …`, where `hosts` has a line `NAME slots={on_each}` for \
                 each; docs/scale.md has more"
            );
        }
        if processes < 2 {
            return Ok(Vec::new());
        }
        let mut words = vec!["launch".to_string(), format!("--num-processes={processes}")];
        words.extend(self.hostfile.iter().map(|file| format!("--hostfile={file}")));
        words.extend(
            self.max_restarts
                .iter()
                .map(|count| format!("--max-restarts={count}")),
        );
        Ok(words.into_iter().map(OsString::from).collect())
    }
}

fn number(name: &str, value: &str) -> Result<usize> {
    match value.parse() {
        Ok(0) | Err(_) => bail!("{name} is {value}; it must be a number of at least 1"),
        Ok(number) => Ok(number),
    }
}

fn per_machine(value: &str) -> Result<usize> {
    match value {
        "auto" | "cpu" => Ok(available_parallelism().map_or(1, usize::from)),
        "gpu" => Ok(1),
        value => number("--nproc_per_node", value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(flags: &[(&str, &str)]) -> Result<String> {
        let mut machines = Machines::default();
        for (name, value) in flags {
            machines.take(
                name,
                Some(*value).filter(|value| !value.is_empty()),
                &mut Vec::new(),
            )?;
        }
        let words = machines.words()?;
        Ok(words.join(std::ffi::OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn processes_are_counted_over_all_machines_or_on_each() {
        assert_eq!(words(&[]).unwrap(), "");
        assert_eq!(
            words(&[("--num_processes", "1"), ("--multi_gpu", "")]).unwrap(),
            ""
        );
        assert_eq!(
            words(&[("--num_processes", "4")]).unwrap(),
            "launch --num-processes=4"
        );
        assert_eq!(
            words(&[("--nproc_per_node", "3"), ("--nnodes", "1:1")]).unwrap(),
            "launch --num-processes=3"
        );
        let hosts = [
            ("--nproc_per_node", "3"),
            ("--nnodes", "2"),
            ("--mpirun_hostfile", "h"),
            ("--max_restarts", "2"),
        ];
        assert_eq!(
            words(&hosts).unwrap(),
            "launch --num-processes=6 --hostfile=h --max-restarts=2"
        );
        let machines = words(&[
            ("--num_machines", "2"),
            ("--num_processes", "8"),
            ("--machine_rank", "1"),
        ]);
        let sentence = machines.unwrap_err().to_string();
        assert!(
            sentence.contains("not needed on this machine") && sentence.contains("slots=4"),
            "{sentence}"
        );
        for wrong in [
            ("--num_processes", "0"),
            ("--num_processes", "two"),
            ("--nnodes", "-1"),
        ] {
            assert!(words(&[wrong]).is_err());
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (flag, named) in [
            ("--use_deepspeed", "DeepSpeed"),
            ("--use_fsdp", "FSDP"),
            ("--tpu", "TPU"),
        ] {
            assert!(
                words(&[(flag, "")]).unwrap_err().to_string().contains(named),
                "{flag}"
            );
        }
    }

    #[test]
    fn accelerates_file_is_read_and_flags_hold_against_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("config.yaml");
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let whole = "compute_environment: LOCAL_MACHINE\ndebug: false\ndistributed_type: MULTI_CPU\ndowncast_bf16: 'no'\n\
                     enable_cpu_affinity: false\nmachine_rank: 0\nmain_training_function: main\nmixed_precision: bf16\n\
                     mpirun_config:\n  mpirun_ccl: '1'\n  mpirun_hostfile: /hosts\nnum_machines: 2\nnum_processes: 4\n\
                     rdzv_backend: static\nsame_network: true\nuse_cpu: true\n";
        let path = file(whole);
        assert_eq!(
            words(&[("--config_file", &path)]).unwrap(),
            "launch --num-processes=4 --hostfile=/hosts"
        );
        for flags in [
            [("--num_processes", "6"), ("--config_file", &path)],
            [("--config_file", &path), ("--num_processes", "6")],
        ] {
            assert!(words(&flags).unwrap().contains("=6"));
        }
        let mut machines = Machines::default();
        machines
            .take("--config_file", Some(&path), &mut Vec::new())
            .unwrap();
        assert_eq!(
            machines.carried,
            [("--mixed_precision".to_string(), "bf16".to_string())]
        );
        let json = file("{\"num_processes\": 3, \"mixed_precision\": \"no\"}");
        assert_eq!(
            words(&[("--config_file", &json)]).unwrap(),
            "launch --num-processes=3"
        );
        for (text, named) in [
            ("distributed_type: DEEPSPEED", "DeepSpeed"),
            ("distributed_type: FSDP\nnum_processes: 2", "FSDP"),
            ("num_processes: many", "num_processes is many"),
            ("[1, 2", "is no configuration"),
            ("just words", "is no configuration"),
        ] {
            let path = file(text);
            let sentence = words(&[("--config_file", &path)]).unwrap_err().to_string();
            assert!(sentence.contains(named), "{sentence}");
        }
        assert!(words(&[("--config_file", "/nowhere.yaml")]).is_err());
    }
}
