package host

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestDetectBatch(t *testing.T) {
	type env = map[string]string
	merge := func(all ...env) env {
		merged := env{}
		for _, e := range all {
			for k, v := range e {
				merged[k] = v
			}
		}
		return merged
	}
	slurm := env{
		"SLURM_JOB_ID": "4242", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8",
		"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "32", "SLURM_MEM_PER_NODE": "65536",
		"SLURM_JOB_GPUS": "0,1,2,3", "SLURM_STEP_GPUS": "2-3", "SLURM_GPUS_ON_NODE": "2",
	}
	torch := env{"TORCHELASTIC_RUN_ID": "finetune-7", "RANK": "3", "WORLD_SIZE": "16", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}
	for _, test := range []struct {
		name string
		env  env
		want *Batch
	}{
		{"nothing", nil, nil},
		{"an unrelated variable", env{"JOB_ID": "7", "RANK": "1"}, nil},
		{"Slurm", slurm, &Batch{
			System: "slurm", Job: "4242", Step: "0", Launcher: "slurm", Rank: 5, Ranks: 8, LocalRank: 1, LocalRanks: 4, Nodes: 2,
			CPUs: 32, Memory: 64 << 30, GPUs: 2, GPUIDs: []string{"2", "3"},
		}},
		{"a batch script of Slurm", env{"SLURM_JOB_ID": "1", "SLURM_JOB_GPUS": "0,5", "SLURM_MEM_PER_CPU": "2G", "SLURM_CPUS_ON_NODE": "8", "SLURM_NNODES": "1"},
			&Batch{System: "slurm", Job: "1", Rank: -1, LocalRank: -1, Nodes: 1, CPUs: 8, Memory: 16 << 30, GPUs: 2, GPUIDs: []string{"0", "5"}}},
		{"all memory", env{"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "0"}, &Batch{System: "slurm", Job: "1", Rank: -1, LocalRank: -1, AllMemory: true}},
		{"memory per CPU, of unknown CPUs", env{"SLURM_JOB_ID": "1", "SLURM_MEM_PER_CPU": "2048"}, &Batch{System: "slurm", Job: "1", Rank: -1, LocalRank: -1}},
		{"nodes that differ", env{"SLURM_JOB_ID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, &Batch{System: "slurm", Job: "1", Rank: -1, LocalRank: -1}},
		{"torchrun in Slurm", merge(slurm, torch), &Batch{
			System: "slurm", Job: "4242", Step: "0", Launcher: "torchrun", Run: "finetune-7", Rank: 3, Ranks: 16, LocalRank: 0, LocalRanks: 4, Nodes: 2,
			CPUs: 32, Memory: 64 << 30, GPUs: 2, GPUIDs: []string{"2", "3"},
		}},
		{"torchrun by hand", merge(torch, env{"TORCHELASTIC_RUN_ID": "none"}), &Batch{Launcher: "torchrun", Rank: 3, Ranks: 16, LocalRanks: 4}},
		{"Open MPI", env{"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
			&Batch{Launcher: "openmpi", Rank: 2, Ranks: 4, LocalRanks: 2}},
		{"Intel MPI", env{"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
			&Batch{Launcher: "mpi", Rank: 2, Ranks: 4, LocalRank: 1, LocalRanks: 2}},
		{"PBS", env{"PBS_JOBID": "123[4].head.example.org", "NCPUS": "16"}, &Batch{System: "pbs", Job: "123[4]", Rank: -1, LocalRank: -1, CPUs: 16}},
		{"LSF", env{"LSB_JOBID": "77", "LSB_JOBINDEX": "0"}, &Batch{System: "lsf", Job: "77", Rank: -1, LocalRank: -1}},
		{"LSF, an array", env{"LSB_JOBID": "77", "LSB_JOBINDEX": "3"}, &Batch{System: "lsf", Job: "77", Step: "3", Rank: -1, LocalRank: -1}},
		{"Grid Engine", env{"JOB_ID": "9", "SGE_ROOT": "/opt/sge", "NSLOTS": "8", "NHOSTS": "1"}, &Batch{System: "sge", Job: "9", Rank: -1, LocalRank: -1, Nodes: 1, CPUs: 8}},
		{"Grid Engine, slots on several nodes", env{"JOB_ID": "9", "SGE_ROOT": "/opt/sge", "NSLOTS": "8", "NHOSTS": "2"}, &Batch{System: "sge", Job: "9", Rank: -1, LocalRank: -1, Nodes: 2}},
		{"Flux", env{"FLUX_JOB_ID": "f5", "FLUX_JOB_NNODES": "2"}, &Batch{System: "flux", Job: "f5", Rank: -1, LocalRank: -1, Nodes: 2}},
		{"nonsense", env{"SLURM_JOB_ID": "a\nb", "SLURM_PROCID": "-2", "SLURM_CPUS_ON_NODE": "many", "SLURM_MEM_PER_NODE": "9999999999999999999T", "SLURM_STEP_GPUS": "0-99999999"},
			&Batch{System: "slurm", Rank: -1, LocalRank: -1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := DetectBatch(func(name string) (string, bool) { v, ok := test.env[name]; return v, ok })
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("\n got %+v\nwant %+v", got, test.want)
			}
			if text, err := json.Marshal(got); err != nil || strings.Contains(string(text), "example.org") {
				t.Errorf("%s, %v", text, err)
			}
		})
	}
}

func FuzzDetectBatch(f *testing.F) {
	f.Add("4(x2)", "65536", "0-3,7")
	f.Add("4", "2G", "1,1")
	f.Fuzz(func(t *testing.T, tasks, memory, gpus string) {
		b := DetectBatch(func(name string) (string, bool) {
			switch name {
			case "SLURM_JOB_ID", "SLURM_CPUS_ON_NODE":
				return "1", true
			case "SLURM_STEP_TASKS_PER_NODE":
				return tasks, true
			case "SLURM_MEM_PER_NODE":
				return memory, true
			case "SLURM_STEP_GPUS":
				return gpus, true
			}
			return "", false
		})
		if b == nil || b.LocalRanks < 0 || b.GPUs < 0 || len(b.GPUIDs) > 4096 || b.AllMemory && b.Memory != 0 {
			t.Errorf("%+v", b)
		}
	})
}
