#!/bin/bash
# One job of two nodes with four GPUs each, a process a GPU, all on one run:  sbatch deploy/srun.sh digits-hmc --draws 2000
# For chains that adapt together, or data that need several GPUs a chain (--data-blocks); independent chains need only slurm.sh.
# Stopped by Slurm, it commits and is put back in the queue; restarted, it goes on.
#SBATCH --job-name=bayesnn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -u
cd "${SLURM_SUBMIT_DIR:-.}"
srun --kill-on-bad-exit=0 .venv/bin/bayesnn run "$@" --runs "${RUNS:-runs}" --resume-if-exists --distributed
status=$?
# 130: stopped with a commit.
[ "$status" = 130 ] && scontrol requeue "$SLURM_JOB_ID"
exit "$status"
