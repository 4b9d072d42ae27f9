//! Whether something started this process as one of several: mpirun, mpiexec, srun and torchrun say so in variables.

/// What a launcher says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    /// How many processes there are.
    pub size: usize,
    /// The variable that says so.
    pub variable: &'static str,
    /// Who sets it.
    pub by: &'static str,
}

/// The variables, those of an MPI first. Slurm sets SLURM_NTASKS in the shell of a batch script too, which is one process, so only those of a
/// step count; and RANK and WORLD_SIZE are names that clusters use for other ends, so torchrun's are known by its own.
const VARIABLES: [(&str, &str); 8] = [
    ("OMPI_COMM_WORLD_SIZE", "mpirun"),
    ("PMI_SIZE", "mpiexec"),
    ("MV2_COMM_WORLD_SIZE", "mpirun"),
    ("MPI_LOCALNRANKS", "mpiexec"),
    ("PALS_SIZE", "PALS"),
    ("FLUX_JOB_SIZE", "flux"),
    ("SLURM_STEP_NUM_TASKS", "srun"),
    ("TORCHELASTIC_WORLD_SIZE", "torchrun"),
];

/// What the variables of this process say, where they say that it is one of several.
pub(crate) fn started() -> Option<Started> {
    of_variables(|name| std::env::var(name).ok())
}

fn of_variables(value: impl Fn(&str) -> Option<String>) -> Option<Started> {
    let of_torchrun = || {
        value("TORCHELASTIC_RUN_ID")?;
        value("WORLD_SIZE")
    };
    VARIABLES.into_iter().find_map(|(variable, by)| {
        let (variable, text) = match variable {
            "TORCHELASTIC_WORLD_SIZE" => ("WORLD_SIZE", of_torchrun()),
            variable => (variable, value(variable)),
        };
        let size = text?.trim().parse().ok()?;
        (size > 1).then_some(Started { size, variable, by })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Option<(usize, &'static str)> {
        let value = |name: &str| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_string())
        };
        of_variables(value).map(|started| (started.size, started.by))
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "4")]), Some((4, "mpirun")));
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "1")]), None);
        assert_eq!(
            of(&[("PMI_SIZE", "2"), ("SLURM_STEP_NUM_TASKS", "2")]),
            Some((2, "mpiexec"))
        );
        // The shell of a batch script.
        assert_eq!(of(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")]), None);
        assert_eq!(of(&[("SLURM_STEP_NUM_TASKS", "8")]), Some((8, "srun")));
        assert_eq!(of(&[("WORLD_SIZE", "3"), ("RANK", "0")]), None);
        assert_eq!(
            of(&[("WORLD_SIZE", "3"), ("TORCHELASTIC_RUN_ID", "none")]),
            Some((3, "torchrun"))
        );
        assert_eq!(of(&[("PMI_SIZE", "many")]), None);
    }
}
