"""Where the tests of other libraries come from: recorded versions, kept outside the repository."""

import hashlib
import io
import json
import subprocess
import tarfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hotnas_torch.files import write_bytes

__all__ = ["BOTORCH", "GPYTORCH", "POT", "POT_FOLDERS", "Archive", "Checkout", "Missing"]

_INDEX = "https://pypi.org/simple"
_JSON = "application/vnd.pypi.simple.v1+json"


class Missing(Exception):
    """A source could not be obtained; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A source distribution on the package index.

    Attributes:
        name: Project on the index.
        version: Release.
        sha256: Digest of the file.
        file: Name of the file.
        tests: Folder of the tests inside it.
    """

    name: str
    version: str
    sha256: str
    file: str
    tests: str = "test"

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{self.version} (sdist)"

    def obtain(self, cache: Path, given: Path | None) -> Path:
        """Return the folder that holds the tests, downloaded if it is not in the cache.

        Args:
            cache: Folder for what is obtained.
            given: The file, where it is not to be downloaded.

        Raises:
            Missing: It could not be downloaded, or the file is another than the recorded one.
        """
        archive = given or cache / self.file
        if not archive.is_file():
            write_bytes(archive, self._downloaded())
        content = archive.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise Missing(f"{archive} has the digest {digest}, not {self.sha256} (delete it)")
        return _unpack(content, cache / f"{self.name}-{self.version}", self.tests, strip=1)

    def _downloaded(self) -> bytes:
        """Return the file. pip would build what its metadata need first."""
        try:
            for file in json.loads(_read(f"{_INDEX}/{self.name.lower()}/"))["files"]:
                if file["filename"].lower() == self.file.lower():
                    return _read(file["url"])
        except OSError as error:
            raise Missing(f"{self.file} could not be downloaded: {error}") from error
        raise Missing(f"{_INDEX}/{self.name.lower()}/ has no file {self.file}")


def _read(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": f"{_JSON}, */*;q=0.1"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        content: bytes = answer.read()
    return content


@dataclass(frozen=True, slots=True)
class Checkout:
    """A commit of a repository, whose hash is its digest.

    Attributes:
        name: Name in the cache.
        url: Repository.
        commit: Hash.
        tests: Folder of the tests inside it.
    """

    name: str
    url: str
    commit: str
    tests: str = "test"

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{self.commit[:10]} (git)"

    def obtain(self, cache: Path, given: Path | None) -> Path:
        """Return the folder that holds the tests, fetched if it is not in the cache.

        Args:
            cache: Folder for what is obtained.
            given: A clone, bare or not, that holds the commit.

        Raises:
            Missing: The repository could not be fetched, or lacks the commit.
        """
        folder = cache / f"{self.name}-{self.commit[:10]}"
        if (folder / self.tests).is_dir():
            return folder
        clone = given
        if clone is None:
            clone = cache / f"{self.name}.git"
            _git(["init", "--quiet", "--bare", str(clone)])
            _git(["-C", str(clone), "fetch", "--quiet", "--depth", "1", self.url, self.commit])
        content = _git(["-C", str(clone), "archive", self.commit, self.tests])
        return _unpack(content, folder, self.tests, strip=0)


def _git(arguments: Sequence[str]) -> bytes:
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise Missing(f"git {arguments[-2]} {arguments[-1]}: {said}")
    return done.stdout


def _unpack(content: bytes, folder: Path, tests: str, *, strip: int) -> Path:
    """Unpack the tests alone: the library that is tested is the installed one."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = []
        for member in archive.getmembers():
            parts = Path(member.name).parts[strip:]
            if parts and parts[0] == tests:
                members.append(member.replace(name="/".join(parts)))
        archive.extractall(folder, members, filter="data")
    return folder


POT = Archive(
    "POT",
    "0.9.7.post1",
    "2edd70845047ac2d378487b980a2bffb5ff58e9b92b7133896ff5753f6300cec",
    "pot-0.9.7.post1.tar.gz",
)
# The source distribution leaves out the folders of its tests.
POT_FOLDERS = Checkout(
    "POT", "https://github.com/PythonOT/POT", "aed0120242e86ab29e630fee59593ee99f416d97"
)
GPYTORCH = Archive(
    "gpytorch",
    "1.15.2",
    "380625e93f851b85f772b25c5fb0a6c6d2e3eb2ef667f1e566ab4f95b8775361",
    "gpytorch-1.15.2.tar.gz",
)
# BoTorch's source distribution holds no tests.
BOTORCH = Checkout(
    "botorch", "https://github.com/pytorch/botorch", "e390e135c5327f832275d69ac485d7844e68e234"
)
