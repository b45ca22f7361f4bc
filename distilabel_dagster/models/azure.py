"""`AzureOpenAILLM`: OpenAI's models as Azure serves them."""

from typing import Any

from pydantic import Field, SecretStr, field_validator

from distilabel_dagster.base.environment import azure_openai_setting
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.errors import ModelError
from distilabel_dagster.models.openai import OpenAILLM


def _secret_setting(name: Any) -> SecretStr | None:
    found = azure_openai_setting(name)
    return SecretStr(found) if found else None


class AzureOpenAILLM(OpenAILLM):
    """A model that is deployed on Azure, behind OpenAI's API.

    Needs the extra `openai`. What isn't given is taken from the environment when the object is made. A deployment's
    name says nothing about the model in it, so that no price is looked up: pass `input_price_usd_per_million` and
    `output_price_usd_per_million` to have the cost.

    Attributes:
        model: the name of the deployment; from `AZURE_OPENAI_DEPLOYMENT` by default.
        base_url: the resource's endpoint, such as `https://<name>.openai.azure.com`; from `AZURE_OPENAI_ENDPOINT` by
            default.
        api_version: which version of Azure's API is spoken; from `OPENAI_API_VERSION` by default.
        api_key: from `AZURE_OPENAI_API_KEY` by default; never written to a file, log or signature.
        azure_ad_token: a token of Microsoft Entra ID, used where there's no key; from `AZURE_OPENAI_AD_TOKEN` by
            default, and as secret as the key.
        generation_kwargs: the options of `agenerate`; see `OpenAILLM` for all that isn't named here.

    Runtime parameters:
        - `api_version`, `azure_ad_token`: see above.
        - those of `OpenAILLM`.

    Examples:
        >>> llm = AzureOpenAILLM(model="mine", base_url="https://x.openai.azure.com", api_version="2024-10-21")
        >>> llm.model_name
        'mine'
    """

    model: str = Field(default_factory=lambda: azure_openai_setting("deployment") or "")
    base_url: RuntimeParameter[str] = Field(
        default_factory=lambda: azure_openai_setting("base_url") or "",
        description="The endpoint of the Azure resource.",
    )
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default_factory=lambda: _secret_setting("api_key"), description="The key for the endpoint."
    )
    azure_ad_token: RuntimeParameter[SecretStr] | None = Field(
        default_factory=lambda: _secret_setting("ad_token"), description="A token of Microsoft Entra ID."
    )
    api_version: RuntimeParameter[str] = Field(
        default_factory=lambda: azure_openai_setting("api_version") or "",
        description="The version of Azure's API.",
    )

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: str) -> str:
        if not value:
            raise ValueError("no deployment is named: pass `model=`, or set AZURE_OPENAI_DEPLOYMENT")
        return value

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str | None) -> str:
        if not value:
            raise ValueError("no endpoint is named: pass `base_url=`, or set AZURE_OPENAI_ENDPOINT")
        return super()._check_base_url(value)

    @field_validator("api_version")
    @classmethod
    def _check_api_version(cls, value: str | None) -> str:
        if not value:
            raise ValueError(
                'no version is named: pass `api_version=` such as "2024-10-21", or set OPENAI_API_VERSION'
            )
        return value

    def _check_credentials(self) -> None:
        if self.api_key is None and self.azure_ad_token is None and not self.default_headers:
            raise ModelError(
                f"Model `{self.model}` at {self.endpoint} needs a key. Set AZURE_OPENAI_API_KEY or AZURE_OPENAI_AD_TOKEN, "
                "or pass `api_key=` or `azure_ad_token=`.",
                model=self.model,
            )

    def _listed_cost_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        return None

    def _describe_place(self) -> dict[str, Any]:
        return {"provider": "azure-openai", "base_url": self.endpoint, "api_version": self.api_version}

    def _further_secrets(self) -> list[SecretStr | None]:
        return [self.azure_ad_token]

    def _build_client(self, http: Any) -> Any:
        from openai import AsyncAzureOpenAI

        # Where there's a key as well the token is left out: the SDK takes one of them.
        credential = (
            {"azure_ad_token": self.azure_ad_token.get_secret_value()}
            if self.api_key is None and self.azure_ad_token is not None
            else {"api_key": self._key_or_placeholder()}
        )
        settings: dict[str, Any] = {
            "azure_endpoint": self.endpoint,
            "azure_deployment": self.model,
            "api_version": self.api_version,
            **credential,
            **self._client_settings(http),
        }
        return AsyncAzureOpenAI(**settings)
