#!/bin/bash
# Eight jobs of four chains each, all in one run folder on a disk that they share:  sbatch deploy/slurm.sh digits-hmc --draws 2000
# Every job runs the same command. A job that Slurm stops commits and is put back in the queue; restarted, it goes on.
#SBATCH --job-name=bayesnn
#SBATCH --array=0-7
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -u
cd "${SLURM_SUBMIT_DIR:-.}"
srun .venv/bin/bayesnn run "$@" --runs "${RUNS:-runs}" --add-chains --resume-if-exists
status=$?
# 130: stopped with a commit.
[ "$status" = 130 ] && scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
exit "$status"
