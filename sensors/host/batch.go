package host

import (
	"slices"
	"strconv"
	"strings"
)

// Batch is what a batch system and a launcher say of this process in its
// environment. What they do not say is empty, and -1 where 0 would mean
// something.
type Batch struct {
	// System is the batch system: "slurm", "pbs", "lsf", "sge" or "flux"; empty
	// for a job that was started by hand.
	System string `json:"system,omitempty"`
	// Job and Step are its numbers, without the name of a server.
	Job  string `json:"job_id,omitempty"`
	Step string `json:"step_id,omitempty"`
	// Launcher starts the processes of a step: "torchrun", "openmpi", "mpi" or
	// "slurm".
	Launcher string `json:"launcher,omitempty"`
	// Run is torchrun's name of the run, for all of its nodes.
	Run string `json:"run_id,omitempty"`

	// Rank counts the processes of the job from 0, Ranks of them; LocalRank those
	// on this machine, LocalRanks of them.
	Rank       int `json:"rank"`
	Ranks      int `json:"ranks,omitempty"`
	LocalRank  int `json:"local_rank"`
	LocalRanks int `json:"local_ranks,omitempty"`

	// Nodes is the number of machines of the job.
	Nodes int `json:"nodes,omitempty"`
	// CPUs, Memory (in bytes) and GPUs are what the job was given of this one. A
	// job that was given all of the memory has AllMemory. GPUIDs are the numbers
	// of the GPUs on this machine, where they are told.
	CPUs      int      `json:"cpus,omitempty"`
	Memory    uint64   `json:"memory_bytes,omitempty"`
	AllMemory bool     `json:"all_memory,omitempty"`
	GPUs      int      `json:"gpus,omitempty"`
	GPUIDs    []string `json:"gpu_ids,omitempty"`
}

// DetectBatch reads what a batch system and a launcher say. It returns nil where
// there is neither. lookup is as os.LookupEnv.
func DetectBatch(lookup func(string) (string, bool)) *Batch {
	env := environment(lookup)
	b := &Batch{Rank: -1, LocalRank: -1}
	switch {
	case env.has("SLURM_JOB_ID"), env.has("SLURM_JOBID"):
		b.slurm(env)
	case env.has("PBS_JOBID"):
		// "123.server", and "123[4].server" in an array.
		b.System, b.Job = "pbs", env.word("PBS_JOBID")
		b.Job, _, _ = strings.Cut(b.Job, ".")
		b.CPUs = env.count("NCPUS", "PBS_NUM_PPN")
		b.Nodes = env.count("PBS_NUM_NODES")
	case env.has("LSB_JOBID"):
		b.System, b.Job, b.Step = "lsf", env.word("LSB_JOBID"), env.word("LSB_JOBINDEX")
		if b.Step == "0" { // of no array
			b.Step = ""
		}
	case env.has("JOB_ID") && env.has("SGE_ROOT"):
		b.System, b.Job = "sge", env.word("JOB_ID")
		b.Nodes = env.count("NHOSTS")
		if b.Nodes == 1 {
			b.CPUs = env.count("NSLOTS")
		}
	case env.has("FLUX_JOB_ID"):
		b.System, b.Job = "flux", env.word("FLUX_JOB_ID")
		b.Nodes = env.count("FLUX_JOB_NNODES")
	}
	b.launcher(env)
	if b.System == "" && b.Launcher == "" {
		return nil
	}
	return b
}

// slurm reads the output environment variables of srun and sbatch.
func (b *Batch) slurm(env environment) {
	b.System = "slurm"
	if b.Job = env.word("SLURM_JOB_ID"); b.Job == "" {
		b.Job = env.word("SLURM_JOBID")
	}
	b.Step = env.word("SLURM_STEP_ID")
	b.Nodes = env.count("SLURM_JOB_NUM_NODES", "SLURM_NNODES")
	b.CPUs = env.count("SLURM_CPUS_ON_NODE")
	b.Rank, b.Ranks = env.number("SLURM_PROCID"), env.count("SLURM_NTASKS")
	b.LocalRank, b.LocalRanks = env.number("SLURM_LOCALID"), uniform(env.text("SLURM_STEP_TASKS_PER_NODE"))
	if b.Rank >= 0 && b.Step != "" {
		b.Launcher = "slurm"
	}
	switch memory, all, ok := mebibytes(env.text("SLURM_MEM_PER_NODE")); {
	case ok:
		b.Memory, b.AllMemory = memory, all
	case b.CPUs > 0:
		// The more CPUs, the more memory.
		if memory, all, ok := mebibytes(env.text("SLURM_MEM_PER_CPU")); ok {
			b.Memory, b.AllMemory = memory*uint64(b.CPUs), all
		}
	}
	for _, name := range []string{"SLURM_STEP_GPUS", "SLURM_JOB_GPUS"} {
		if ids := listedIDs(env.text(name)); len(ids) > 0 {
			b.GPUIDs = ids
			break
		}
	}
	if b.GPUs = env.count("SLURM_GPUS_ON_NODE"); b.GPUs == 0 {
		b.GPUs = len(b.GPUIDs)
	}
}

// launcher reads the innermost launcher: torchrun in a task of MPI or Slurm
// starts processes of its own.
func (b *Batch) launcher(env environment) {
	set := func(name, rank, ranks, localRank, localRanks string) {
		b.Launcher = name
		b.Rank, b.Ranks = env.number(rank), env.count(ranks)
		b.LocalRank, b.LocalRanks = env.number(localRank), env.count(localRanks)
	}
	switch {
	case env.has("TORCHELASTIC_RUN_ID"), env.has("LOCAL_RANK") && env.has("RANK") && env.has("WORLD_SIZE"):
		set("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
		if b.Run = env.word("TORCHELASTIC_RUN_ID"); b.Run == "none" {
			b.Run = "" // its default, the same for every run
		}
	case env.has("OMPI_COMM_WORLD_RANK"):
		set("openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
	case env.has("PMI_RANK") && env.has("MPI_LOCALRANKID"):
		set("mpi", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
	}
}

// environment looks up variables.
type environment func(string) (string, bool)

func (e environment) text(name string) string {
	v, _ := e(name)
	return strings.TrimSpace(v)
}

func (e environment) has(name string) bool { return e.text(name) != "" }

// word returns a name of a job or a step, empty where it is no such name.
func (e environment) word(name string) string {
	v := e.text(name)
	if len(v) > 128 || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return v
}

// number returns a number from 0, or -1.
func (e environment) number(name string) int {
	n, err := strconv.ParseUint(e.text(name), 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// count returns the first of the names that is a number, or 0.
func (e environment) count(names ...string) int {
	for _, name := range names {
		if n := e.number(name); n > 0 {
			return n
		}
	}
	return 0
}

// uniform returns how many tasks each node has, "4(x2)" or "4"; 0 where nodes
// differ, as it is not told which one this is.
func uniform(tasks string) int {
	first, rest, _ := strings.Cut(tasks, "(")
	if strings.Contains(rest, ",") {
		return 0
	}
	n, err := strconv.ParseUint(first, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// mebibytes reads a size of Slurm, in MiB unless a unit follows; 0 is all of the
// node's memory.
func mebibytes(text string) (size uint64, all, ok bool) {
	shift := 20
	if i := len(text) - 1; i > 0 {
		if unit := strings.IndexByte("KMGT", text[i]&^0x20); unit >= 0 {
			shift, text = 10*(unit+1), text[:i]
		}
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > 1<<62>>shift {
		return 0, false, false
	}
	return n << shift, n == 0, true
}

// listedIDs returns the elements of "0,2", with those of ranges such as "4-7".
func listedIDs(list string) []string {
	const most = 1024
	var ids []string
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		first, last, ranged := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 31)
		to, err2 := strconv.ParseUint(last, 10, 31)
		switch {
		case err == nil && !ranged:
			ids = append(ids, first)
		case err == nil && err2 == nil && from <= to && to-from < most:
			for i := from; i <= to; i++ {
				ids = append(ids, strconv.FormatUint(i, 10))
			}
		default:
			return nil
		}
		if len(ids) > most {
			return nil
		}
	}
	return slices.Compact(ids)
}
