"""Keys of model providers that users seal for themselves: whose turns use them, where they go, and where they never
show."""

from __future__ import annotations

import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import raw_rows
from scripted_models import HANDLES, KEYS, ScriptedModels, Turn
from server_fixtures import Served
from stores import thinned
from test_turns import stop
from turn_fixtures import Talking, serving, talking  # noqa: F401

from tallystone import crypto
from tallystone.errors import Denied, Invalid, TallystoneError, Tampered
from tallystone.keystore import Keys, Root
from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.vault import Workspace, model_keys, streams

pytestmark = thinned(2, "what models hear and say is told above the store")

CANARY = "sk-canary-4Zt9QpXw71Lm"
OTHER = "sk-other-8Hn3RsVy26Kd"
PATH = "/v1/model-keys/openai"


def used(models: ScriptedModels) -> list[str]:
    """The keys that the models were shown, in order."""
    return [asked.headers["authorization"].removeprefix("Bearer ") for asked in models.asked]


def seal(served: Served, origin: str, key: str = CANARY, token: str | None = None) -> Any:
    """Set a user's own key for openai."""
    answer = served.http(token).put(PATH, json={"key": key, "origin": origin})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_turn_uses_the_users_own_key_and_the_servers_for_everybody_else(
    talking: Talking,  # noqa: F811
) -> None:
    served, models = talking.served, talking.models
    models.welcome |= {CANARY, OTHER}
    agent = talking.agent()
    made = seal(served, models.url)
    assert made.keys() == {"provider", "origin", "created_at"}
    models.play([Turn("whole"), Turn("streamed"), Turn("summed up")])
    assert stop(talking.say(agent)) == "end_turn"
    list(served.letta().agents.messages.create(agent.id, input="go on", streaming=True, stream_tokens=True))
    served.http().post(f"/v1/agents/{agent.id}/summarize", json={}).raise_for_status()
    assert used(models) == [CANARY] * 3

    ada = served.add_user("ada")
    hers = served.letta(ada).agents.create(model=HANDLES["openai"], name="hers")
    models.play([Turn("for ada"), Turn("for ada"), Turn("for me")])
    served.letta(ada).agents.messages.create(hers.id, input="hello")
    seal(served, models.url, OTHER, ada)
    served.letta(ada).agents.messages.create(hers.id, input="hello")
    talking.say(agent)
    assert used(models) == [KEYS["openai"], OTHER, CANARY]

    assert served.http().delete(PATH).status_code == 200
    models.play([Turn("again")])
    talking.say(agent)
    assert used(models) == [KEYS["openai"]]


def test_an_agents_own_token_opens_no_key_of_its_user(talking: Talking) -> None:  # noqa: F811
    served, models = talking.served, talking.models
    models.welcome.add(CANARY)
    agent = talking.agent()
    seal(served, models.url)
    token = served.vault().agent_token(agent.id)
    models.play([Turn("x")])
    served.letta(token).agents.messages.create(agent.id, input="hello")
    assert used(models) == [KEYS["openai"]]
    assert served.http(token).get("/v1/model-keys/").json() == []
    refused = served.http(token).put(PATH, json={"key": OTHER})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "agent_token")
    assert served.vault(token).open_model_key("openai", models.url) is None


def test_a_read_token_lists_what_there_is_and_opens_none(talking: Talking) -> None:  # noqa: F811
    served = talking.served
    made = seal(served, "https://api.openai.com/v1")
    token = served.vault().create_token(scope="read")
    assert served.http(token).get("/v1/model-keys/").json() == [made]
    assert made["origin"] == "https://api.openai.com"
    for answer in (served.http(token).put(PATH, json={"key": OTHER}), served.http(token).delete(PATH)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "read_only_token")
    assert served.vault(token).open_model_key("openai", made["origin"]) is None


def test_a_key_goes_to_no_other_origin_than_it_was_set_for(talking: Talking) -> None:  # noqa: F811
    """Whoever runs the server may point `openai` somewhere else; a key that was meant for OpenAI stays where it is."""
    served, models = talking.served, talking.models
    agent = talking.agent()
    assert served.http().put(PATH, json={"key": CANARY}).json()["origin"] == "https://api.openai.com"
    models.play([Turn("x")])
    talking.say(agent)
    assert used(models) == [KEYS["openai"]]
    assert served.vault().open_model_key("openai", models.url) is None
    assert served.vault().open_model_key("openai", "https://api.openai.com") == CANARY


def test_a_users_key_is_enough_where_the_server_has_none(tmp_path: Path) -> None:
    """Also for the list of models: each caller sees those that it can call."""
    settings = Settings(port=0, log_level="error", models=("openai/a", "anthropic/b"))
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace, running(workspace, settings) as url:
        served = Served(workspace, url, you.token, you.principal)
        agent = served.letta().agents.create(name="a", model="openai/a")
        answer = served.http().post(f"/v1/agents/{agent.id}/messages", json={"input": "hello"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_model")
        assert "tallystone model key set openai" in answer.json()["error"]["hint"]
        assert served.letta().models.list() == []
        assert served.http().put(PATH, json={"key": CANARY}).status_code == 200
        assert [model.handle for model in served.letta().models.list()] == ["openai/a"]
        assert served.letta(served.add_user("ada")).models.list() == []
        for client in served.closing:
            client.close()


def test_a_key_shows_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedModels() as models:
        for talk in serving(tmp_path / "data", models):
            served, http = talk.served, talk.served.http()
            agent = talk.agent()
            answers = [http.put(PATH, json={"key": CANARY, "origin": models.url})]
            answers += [
                http.put(PATH, json=body) for body in ({"key": CANARY + " x"}, {"key": [CANARY]}, [CANARY])
            ]
            answers.append(http.put("/v1/model-keys/None", json={"key": CANARY}))
            answers.append(http.put(PATH, json={"key": CANARY, "origin": "ftp://x"}))
            answers.append(http.put("/v1/model-keys/vllm", json={"key": CANARY}))
            assert [answer.status_code for answer in answers] == [200] + [422] * 6
            assert all(answer.json()["error"]["hint"] for answer in answers[1:])
            # the models do not know this key, and one of them repeats it: the turn fails, and says nothing of it
            models.play([Turn("never")])
            answers.append(http.post(f"/v1/agents/{agent.id}/messages", json={"input": "hello"}))
            assert (answers[-1].json()["stop_reason"]["stop_reason"], used(models)) == ("llm_api_error", [])
            models.welcome.add(CANARY)
            models.play([Turn(status=400, error=CANARY)])
            answers.append(http.post(f"/v1/agents/{agent.id}/messages", json={"input": "hello"}))
            models.play([Turn(status=400, error=CANARY)])
            answers.append(http.post(f"/v1/agents/{agent.id}/messages/stream", json={"input": "hello"}))
            assert used(models) == [CANARY]
            for path in (
                "/v1/model-keys/",
                "/v1/runs/",
                "/v1/steps/",
                "/v1/audit/events?limit=0",
                "/v1/agents/",
            ):
                answers.append(http.get(path))
            for answer in answers:
                assert CANARY not in answer.text + str(answer.headers)
            vault = served.vault()
            with pytest.raises(Invalid) as wrong:
                vault.set_model_key("openai", CANARY + "\n", models.url)
            assert CANARY not in "".join(traceback.format_exception(wrong.value))
            shown = repr(vault.model_keys()) + repr(vault)
            assert CANARY not in shown
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert CANARY.encode() not in content
            assert b"model-key" not in content
    seen = capfd.readouterr()
    assert CANARY not in seen.out + seen.err + caplog.text


def test_a_key_of_another_place_does_not_open(tmp_path: Path) -> None:
    """Not for another provider, origin or user, whatever an operator does to the rows."""
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace:
        vault = workspace.vault(you.token)
        with closing(raw_rows.connect(tmp_path / "data" / "tallystone.db")) as rows:
            before = {
                row[0] for row in rows.execute("SELECT number FROM entry").fetchall()
            }  # the index of names
        vault.set_model_key("openai", CANARY, "https://api.openai.com")
        vault.set_model_key("anthropic", OTHER, "https://api.anthropic.com")
    database = tmp_path / "data" / "tallystone.db"
    with closing(raw_rows.connect(database)) as rows:
        found = rows.execute("SELECT number, sealed FROM entry").fetchall()
        (first, one), (second, two) = [row for row in found if row[0] not in before]
        rows.execute("UPDATE entry SET sealed = ? WHERE number = ?", (two, first))
        rows.execute("UPDATE entry SET sealed = ? WHERE number = ?", (one, second))
    with Workspace.open(tmp_path / "data") as workspace:
        vault = workspace.vault(you.token)
        for provider, origin in (
            ("openai", "https://api.openai.com"),
            ("anthropic", "https://api.anthropic.com"),
        ):
            with pytest.raises(Tampered):
                vault.open_model_key(provider, origin)
        assert workspace.verify().findings


def test_the_stored_form_is_the_known_one() -> None:
    """A change of any byte here is a change of the stored format, which needs a migration."""
    keys = Keys("user-1", Root(b"R" * 32, b"A" * 32, b"P" * 32))
    assert keys.spend.hex() == SPEND
    assert streams._stream(keys, model_keys.MODEL_KEY).hex() == STREAM
    assert streams._address(keys, model_keys.MODEL_KEY, "openai") == ADDRESS
    context = model_keys._context("user-1", "openai", "https://api.openai.com")
    assert crypto.open_sealed(keys.spend, context, bytes.fromhex(SEALED)) == b"sk-known"
    for other in (
        ("user-2", "openai", "https://api.openai.com"),
        ("user-1", "openai", "https://api.openai.com:444"),
    ):
        with pytest.raises(TallystoneError):
            crypto.open_sealed(keys.spend, model_keys._context(*other), bytes.fromhex(SEALED))


SPEND = "a16691a17c135d91285e0f9ad7033bad5ee800106ca4879ebfe1c01126200ebb"
STREAM = "4a2fbd888c880c04b29d6ac3490c85b391c6421278c585e25ebd1a01f1c0edd7"
ADDRESS = 4264455722698857022
SEALED = (
    "6a61e49d35b47629cd48434ce6993cdd8fa6e6e69ee28e830d90d13252e4d70fe7da5c8dac6d5217"
    "88260800e94174554eea0c7b47f4572aa045d09febc1fe0cd62c6a61e4ea6d68cd4bcc5e9abf06ad"
)


def test_users_keep_their_own(tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace:
        root = workspace.vault(you.token)
        ada = workspace.vault(root.add_user("ada").token)
        root.set_model_key("openai", CANARY, "https://api.openai.com")
        assert ada.model_keys() == []
        with pytest.raises(TallystoneError, match="no model key for openai"):
            ada.remove_model_key("openai")
        ada.set_model_key("openai", OTHER, "https://api.openai.com")
        assert root.open_model_key("openai", "https://api.openai.com") == CANARY
        ada.remove_model_key("openai")
        assert [one.provider for one in root.model_keys()] == ["openai"]
        agent = workspace.vault(root.agent_token(root.create_agent({"name": "a"}).id))
        with pytest.raises(Denied):
            agent.set_model_key("openai", OTHER, "https://api.openai.com")
        assert not root.inspect().findings
    with Workspace.open(tmp_path / "data") as workspace:
        assert not workspace.verify().findings
