#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, for tests: slurm.sh start | stop | status
# Needs root and Debian's slurm-wlm and munge (apt-get install slurm-wlm munge); no systemd.
set -euo pipefail
CONF=/etc/slurm/slurm.conf
HOST=$(hostname -s)
MARK="# written by tests/slurm.sh"

need() {
  [ "$(id -u)" = 0 ] || { echo "cannot start SLURM: not root"; exit 3; }
  for tool in slurmctld slurmd munged sbatch; do
    command -v "$tool" >/dev/null || { echo "cannot start SLURM: no $tool (apt-get install slurm-wlm munge)"; exit 3; }
  done
  if [ -e "$CONF" ] && ! grep -q "^$MARK" "$CONF"; then
    echo "cannot start SLURM: $CONF belongs to another cluster"; exit 3
  fi
}

start() {
  need
  local memory; memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
  mkdir -p /etc/slurm /run/munge /var/log/slurm-test /var/spool/slurm-test/{ctld,d}
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
StateSaveLocation=/var/spool/slurm-test/ctld
SlurmdSpoolDir=/var/spool/slurm-test/d
SlurmctldPidFile=/run/slurmctld-test.pid
SlurmdPidFile=/run/slurmd-test.pid
SlurmctldLogFile=/var/log/slurm-test/slurmctld.log
SlurmdLogFile=/var/log/slurm-test/slurmd.log
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$HOST Default=YES MaxTime=INFINITE State=UP
EOF
  [ -s /etc/munge/munge.key ] || { head -c 1024 /dev/urandom >/etc/munge/munge.key; }
  chown -R munge: /etc/munge /run/munge /var/lib/munge /var/log/munge
  chmod 0700 /etc/munge; chmod 0400 /etc/munge/munge.key; chmod 0755 /run/munge
  munge -n </dev/null >/dev/null 2>&1 || runuser -u munge -- munged
  slurmctld -c
  slurmd
  for _ in $(seq 60); do
    if sinfo -h -o %T 2>/dev/null | grep -q idle; then echo "SLURM runs on $HOST"; return; fi
    sleep 1
  done
  echo "cannot start SLURM: the node did not become idle (see /var/log/slurm-test)"; exit 3
}

stop() {
  grep -q "^$MARK" "$CONF" 2>/dev/null || { echo "no SLURM of this script"; return; }
  for file in /run/slurmd-test.pid /run/slurmctld-test.pid; do
    [ -s "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
  done
  sleep 2
  [ -s /run/munge/munged.pid ] && kill "$(cat /run/munge/munged.pid)" 2>/dev/null || true
  rm -rf "$CONF" /var/spool/slurm-test
  echo "SLURM stopped"
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  status) sinfo ;;
  *) echo "usage: slurm.sh start | stop | status"; exit 2 ;;
esac
