import { answer, api } from "../../api";
import { Badge, Empty, ErrorBox, Loading } from "../../components/Feedback";
import { useLoad } from "../../load";
import { ago, time } from "../../text";
import { text } from "./text";

const COMMAND = "visionloop tokens create NAME --scope annotate";

/** The named tokens; their secrets are nowhere on the server. */
export function Tokens() {
  const t = text();
  const found = useLoad((signal) => answer(api.GET("/tokens", { signal })), []);
  if (found.error) return <ErrorBox error={found.error} retry={found.reload} />;
  if (!found.data) return <Loading />;
  const { tokens } = found.data;
  if (!tokens.length) {
    return (
      <Empty icon="key" title={t.noTokens}>
        <code>{COMMAND}</code>
      </Empty>
    );
  }
  return (
    <>
      <div class="table" tabIndex={0} role="region" aria-label={t.tokens}>
        <table>
          <thead>
            <tr>
              <th>{t.tokenName}</th>
              <th>{t.scope}</th>
              <th>{t.state}</th>
              <th>{t.lastUsed}</th>
              <th>{t.expires}</th>
              <th>{t.created}</th>
            </tr>
          </thead>
          <tbody>
            {tokens.map((token) => (
              <tr key={token.id}>
                <td>{token.name}</td>
                <td>{token.scope}</td>
                <td>
                  <Badge kind={token.state === "valid" ? "good" : "plain"}>{t.states[token.state] ?? token.state}</Badge>
                </td>
                <td class="nowrap">{token.last_used_at ? ago(token.last_used_at) : t.never}</td>
                <td class="nowrap">{token.expires_at ? time(token.expires_at) : t.never}</td>
                <td>
                  {time(token.created_at)} <span class="muted">{t.by(token.created_by)}</span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="muted">
        {t.makeToken} <code>{COMMAND}</code>
      </p>
    </>
  );
}
