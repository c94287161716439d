"""What the hub says of a repository: its commit, its files and their digests; by the hub's own library.

Turns that library's errors into ours, each with what to do next. Fetches no file.
"""

from __future__ import annotations

from dataclasses import dataclass

from llamakit import __version__
from llamakit.core.config import Secret
from llamakit.core.errors import DownloadError, GatedModel, Offline
from llamakit.hub import ids
from llamakit.hub.fetch import RemoteFile, describe
from llamakit.hub.names import ModelRef

TIMEOUT_S = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A repository at one commit."""

    commit: str
    files: dict[str, RemoteFile]


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """A hub. Without `token`, the one that its library has stored or finds in HF_TOKEN is used."""

    endpoint: str
    token: Secret | None = None

    def headers(self) -> dict[str, str]:
        """Who we are, for requests to the hub itself."""
        from huggingface_hub.utils import build_hf_headers

        return build_hf_headers(
            token=self.token.reveal() if self.token else None, library_name="llamakit", library_version=__version__
        )

    def describe(self, ref: ModelRef, repo: str) -> Description:
        """The files of `repo` at the wanted revision; raises `GatedModel`, `Offline` or `DownloadError`."""
        import httpx2
        from huggingface_hub import HfApi
        from huggingface_hub import errors as hub_errors

        api = HfApi(endpoint=self.endpoint, token=self.token.reveal() if self.token else None, library_name="llamakit")
        try:
            info = api.model_info(repo, revision=ref.revision, files_metadata=True, timeout=TIMEOUT_S)
        except hub_errors.GatedRepoError as error:
            raise GatedModel(gate(ref, repo, self.endpoint)) from error
        except hub_errors.RepositoryNotFoundError as error:
            raise DownloadError(
                f"{self.endpoint} has no repository {repo}, or it is private: check the spelling, "
                "or give a token that may read it (--token, HF_TOKEN, or `hf auth login`)"
            ) from error
        except hub_errors.RevisionNotFoundError as error:
            raise DownloadError(f"{repo} has no revision {ref.revision!r}") from error
        except hub_errors.OfflineModeIsEnabled as error:
            raise Offline("the network is switched off (HF_HUB_OFFLINE)") from error
        except hub_errors.HfHubHTTPError as error:
            status = error.response.status_code
            hint = f"the token is not valid; make one at {self.endpoint}/settings/tokens"
            hint = hint if status == 401 else "try again later"
            raise DownloadError(f"{self.endpoint} answered {status} about {repo}: {hint}") from error
        except httpx2.TransportError as error:
            raise Offline(f"{self.endpoint} cannot be reached ({error or type(error).__name__})") from error
        if info.gated and not any(name.lower() == "authorization" for name in self.headers()):
            raise GatedModel(gate(ref, repo, self.endpoint))
        files = [
            describe(entry.rfilename, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
            for entry in info.siblings or ()
        ]
        return Description(commit=ids.check_commit(info.sha), files={file.name: file for file in files})


def gate(ref: ModelRef, repo: str, endpoint: str) -> str:
    """What to do about a repository that asks for an accepted licence."""
    model = ref.model
    lines = [
        f"{repo} asks you to accept {'the ' + model.licence.title if model else 'its licence'} first:",
        f"  1. open {endpoint}/{repo} and accept",
        f"  2. make a read token at {endpoint}/settings/tokens",
        f"  3. llama pull {ref.name} --token hf_...   (or set HF_TOKEN, or run `hf auth login`)",
    ]
    if model is not None and model.mirrors and repo not in model.mirrors:
        lines.append(f"A copy under the same licence that does not ask: llama pull {model.name} --mirror")
    return "\n".join(lines)
