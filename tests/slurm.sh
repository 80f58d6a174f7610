#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, for tests: slurm.sh start | stop | status
# Needs root and Debian's slurm-wlm and munge (apt-get install slurm-wlm munge); no systemd.
# A start that fails half-way stops what it had started; stop leaves a munged that ran before.
set -euo pipefail
AT=${SLURM_SH_AT:-}  # another root folder, for the test of this script
CONF=$AT/etc/slurm/slurm.conf
SPOOL=$AT/var/spool/slurm-test
HOST=$(hostname -s)
MARK="# written by tests/slurm.sh"

alive() {
  [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null
}

need() {
  [ "$(id -u)" = 0 ] || { echo "cannot start SLURM: not root"; exit 3; }
  for tool in slurmctld slurmd munged sbatch; do
    command -v "$tool" >/dev/null || { echo "cannot start SLURM: no $tool (apt-get install slurm-wlm munge)"; exit 3; }
  done
  if [ -e "$CONF" ] && ! grep -q "^$MARK" "$CONF"; then
    echo "cannot start SLURM: $CONF belongs to another cluster"; exit 3
  fi
  if alive "$AT/run/slurmctld-test.pid"; then
    echo "cannot start SLURM: that of this script runs already (slurm.sh stop)"; exit 3
  fi
}

undo() {
  local status=$?
  [ "$status" = 0 ] || stop >/dev/null 2>&1 || true
  exit "$status"
}

start() {
  need
  trap undo EXIT
  local memory; memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
  mkdir -p "$AT"/etc/slurm "$AT"/var/log/slurm-test "$SPOOL"/{ctld,d}
  cat >"$CONF" <<EOF
$MARK
ClusterName=test
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2
MinJobAge=300
ReturnToService=2
MpiDefault=none
StateSaveLocation=$SPOOL/ctld
SlurmdSpoolDir=$SPOOL/d
SlurmctldPidFile=$AT/run/slurmctld-test.pid
SlurmdPidFile=$AT/run/slurmd-test.pid
SlurmctldLogFile=$AT/var/log/slurm-test/slurmctld.log
SlurmdLogFile=$AT/var/log/slurm-test/slurmd.log
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$HOST Default=YES MaxTime=INFINITE State=UP
EOF
  munge -n </dev/null >/dev/null 2>&1 || start_munged
  slurmctld -c
  slurmd
  for _ in $(seq 60); do
    if sinfo -h -o %T 2>/dev/null | grep -q idle; then echo "SLURM runs on $HOST"; return; fi
    sleep 1
  done
  echo "cannot start SLURM: the node did not become idle (see /var/log/slurm-test)"; exit 3
}

start_munged() {
  mkdir -p "$AT"/{etc,run,var/lib,var/log}/munge
  [ -s "$AT/etc/munge/munge.key" ] || head -c 1024 /dev/urandom >"$AT/etc/munge/munge.key"
  chown -R munge: "$AT"/{etc,run,var/lib,var/log}/munge
  chmod 0700 "$AT/etc/munge"; chmod 0400 "$AT/etc/munge/munge.key"; chmod 0755 "$AT/run/munge"
  touch "$SPOOL/munged"  # ours to stop
  runuser -u munge -- munged
}

stop() {
  grep -q "^$MARK" "$CONF" 2>/dev/null || { echo "no SLURM of this script"; return; }
  for file in "$AT"/run/slurmd-test.pid "$AT"/run/slurmctld-test.pid; do
    if alive "$file"; then kill "$(cat "$file")" || true; fi
  done
  sleep 2
  if [ -e "$SPOOL/munged" ] && alive "$AT/run/munge/munged.pid"; then
    kill "$(cat "$AT/run/munge/munged.pid")" || true
  fi
  rm -rf "$CONF" "$SPOOL"
  echo "SLURM stopped"
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  status) sinfo ;;
  *) echo "usage: slurm.sh start | stop | status"; exit 2 ;;
esac
