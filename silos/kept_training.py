"""What a silo's worker keeps of a training, in the job's folder, and what it does when it has been at the end before."""

from __future__ import annotations

from silos.leftovers import TRAINING_FOLDER
from silos.links import LinkChannel
from silos.sealed_files import SealedFiles
from silos.tasks import Task
from vertical import resuming
from vertical.checkpoints import Owners
from vertical.resuming import Finished, Keep, job_plan


def keep(task: Task) -> Keep:
    """What an earlier worker of ours kept of this job, and where this one does.

    The plan is the session id: a hash of the spec and of everybody's consent.
    Raises: SpillError.
    """
    store = SealedFiles(task.folder / TRAINING_FOLDER, f"{task.spec.job}\n{task.me}")
    return Keep(store, job_plan(task.session), lambda step: task.progress(f"resumed at pass {step}", 0, 1))


def earlier(task: Task, kept: Keep, channel: LinkChannel) -> Finished | None:
    """Our result if an earlier attempt came to its end; None if there is still something to do.

    There are no links if our node knows that all have their results.
    Raises: LocalProtocolError, RemoteProtocolError and PeerLost, SpillError.
    """
    if not channel.bytes_sent:
        return kept.alone()
    spec = task.spec
    owners = Owners(channel, spec.owners, spec.owners.index(task.me))
    return resuming.earlier(kept, owners, spec.randomness or "", spec.dealer)
