"""What a bucket has to permit to whom: IAM policies for the roles around a registry.

`reader` resolves, pulls and verifies; `pusher` also commits versions; `deployer` reads and moves aliases; `keeper` deletes
and collects too. Nobody but the keeper can remove a version's files, and nobody can change a policy into more than it says.
"""

from __future__ import annotations

from typing import Any

from longshore_runtime.errors import LongshoreError
from longshore_runtime.s3_settings import split_uri

_COMMITS = (".longshore/*", "*/events/*")
"""What every role that commits writes: the proof that the store refuses to overwrite, and the log."""

_WRITES = {
    "reader": (),
    "pusher": (*_COMMITS, "*/versions/*", "*/trees/*", "*/signatures/*", "*/guards/*", "*/staging/*", "*/dependents/*"),
    "deployer": (*_COMMITS, "*/aliases/*"),
    "keeper": (*_COMMITS, "*/deletions/*", "*/guards/*", "*/dependents/*"),
}
_DELETES = {
    "reader": (),
    "pusher": (".longshore/probes/*", "*/guards/*", "*/staging/*"),
    "deployer": (),
    "keeper": (".longshore/probes/*", "*/guards/*", "*/staging/*", "*/trees/*", "*/signatures/*", "*/dependents/*"),
}
_UPLOADS = {"pusher", "keeper"}

ROLES = tuple(_WRITES)


def make_policy(role: str, uri: str) -> dict[str, Any]:
    """The IAM policy for a role in the registry at an `s3://` URI. Raises LongshoreError for other URIs and roles."""
    if role not in ROLES:
        raise LongshoreError(f"{role!r} is not a role", f"use one of {', '.join(ROLES)}")
    if not uri.startswith("s3://"):
        raise LongshoreError(f"{uri} has no policies: it is a folder", "name a registry in a bucket: --registry s3://…")
    bucket, prefix = split_uri(uri)
    arn = f"arn:aws:s3:::{bucket}"
    below = f"{arn}/{prefix}/" if prefix else f"{arn}/"
    statements = [
        {
            "Sid": "List",
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [arn],
            "Condition": {"StringLike": {"s3:prefix": [f"{prefix}/*" if prefix else "*"]}},
        },
        {"Sid": "Read", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{below}*"]},
    ]
    if _WRITES[role]:
        statements.append(_allow("Write", "s3:PutObject", below, _WRITES[role]))
    if _DELETES[role]:
        statements.append(_allow("Delete", "s3:DeleteObject", below, _DELETES[role]))
    if role in _UPLOADS:
        statements += [
            {"Sid": "ListUploads", "Effect": "Allow", "Action": ["s3:ListBucketMultipartUploads"], "Resource": [arn]},
            {
                "Sid": "Uploads",
                "Effect": "Allow",
                "Action": ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
                "Resource": [f"{below}*"],
            },
        ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(name: str, action: str, below: str, patterns: tuple[str, ...]) -> dict[str, Any]:
    return {"Sid": name, "Effect": "Allow", "Action": [action], "Resource": [below + pattern for pattern in patterns]}
