"""The HTML of the report: a jinja2 template; everything it shows is escaped."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>foldcp: {{ run.input }}</title>
<style>
:root { --ink: #1c2430; --soft: #5d6878; --line: #dfe4ea; --page: #f6f7f9; --card: #fff; --accent: #2c6e9b;
        --tint: #cfe3f0; --good: #2f7d4f; --bad: #b3402e; --warn: #fff0c9; --warnline: #dba617; --warnink: #5c4300; }
@media (prefers-color-scheme: dark) {
:root { --ink: #e3e8ee; --soft: #9aa5b4; --line: #323b47; --page: #14181e; --card: #1c222a; --accent: #7db9e0;
        --tint: #24455c; --good: #6cc492; --bad: #ef8d7c; --warn: #3d3214; --warnline: #b58a16; --warnink: #f5dc98; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 60px; }
header p { margin: 2px 0 0; color: var(--soft); }
h1 { font-size: 26px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 4px; }
h2 + p { margin: 0 0 12px; color: var(--soft); }
h2 + div { margin-top: 12px; }
.warning { margin: 18px 0 0; padding: 12px 16px; border: 1px solid var(--warnline); border-left-width: 6px;
           border-radius: 6px; background: var(--warn); color: var(--warnink); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(155px, 1fr)); gap: 12px; margin-top: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.card b { display: block; font-size: 22px; white-space: nowrap; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 13px; }
.good b { color: var(--good); } .bad b { color: var(--bad); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 7px 12px; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 600; font-size: 12.5px; white-space: nowrap; }
tbody tr:hover { background: color-mix(in srgb, var(--tint) 28%, transparent); }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wrap { overflow-wrap: anywhere; min-width: 160px; }
.left { text-align: left; } .short { white-space: nowrap; }
.short .soft { white-space: normal; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.bar { display: inline-block; width: 76px; height: 8px; margin-right: 8px; border-radius: 4px; background: var(--line);
       overflow: hidden; vertical-align: 1px; }
.bar i { display: block; height: 100%; background: var(--accent); }
.stages { display: flex; height: 26px; border-radius: 6px; overflow: hidden; border: 1px solid var(--line); }
.stages i { display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 8px 0 16px; font-size: 13px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
.s0 { background: #8c9bb0; } .s1 { background: #2c6e9b; } .s2 { background: #5aa9a3; } .s3 { background: #d9a441; }
.s4 { background: #a6617c; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; padding: 14px 16px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: 0; padding: 12px 16px; overflow-x: auto; font-size: 13px; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin-top: 12px; }
summary { padding: 9px 16px; cursor: pointer; color: var(--soft); }
a { color: var(--accent); }
</style>
</head>
<body>
<main>
<header>
<h1>{{ run.input }}</h1>
<p>{{ runs[-1].status if runs else "not started" }}, last started {{ (runs[-1].started if runs else none) | when }},
weights {{ run.checkpoint }}</p>
</header>
{% if untrained %}
<div class="warning">{{ untrained }}</div>
{% endif %}
{% if stale %}
<p>{{ stale }}</p>
{% endif %}
<div class="cards">
<div class="card good"><b>{{ counts.done }}</b><span>complexes scored</span></div>
<div class="card{{ ' bad' if counts.failed }}"><b>{{ counts.failed }}</b><span>failed</span></div>
<div class="card{{ ' bad' if counts.invalid }}"><b>{{ counts.invalid }}</b><span>cannot be built</span></div>
<div class="card"><b>{{ num_samples }}</b><span>structures</span></div>
<div class="card"><b>{{ num_pairs }}</b><span>chain pairs</span></div>
<div class="card"><b>{{ gpu_seconds | duration }}</b><span>time &times; GPUs (or CPU ranks)</span></div>
</div>

<h2>Best interfaces</h2>
{% if best %}
<p>By ipSAE of the worse direction{% if best[0].num_samples > 1 %}, averaged over the samples{% endif %}.
a&rarr;b: frames in chain a, scored tokens in chain b.
{% if num_pairs > best | length %}The first {{ best | length }} of {{ num_pairs }} pairs; all are in
<a href="tables/interfaces">tables/interfaces</a>.{% endif %}</p>
<div class="scroll"><table>
<thead><tr><th class="num">#</th><th>Complex</th><th>Chains</th><th>ipSAE a&rarr;b</th><th>ipSAE b&rarr;a</th>
<th class="num">ipTM a&rarr;b</th><th class="num">b&rarr;a</th>
<th class="num">min PAE, Å</th><th class="num">Contacts</th></tr></thead>
<tbody>
{% for pair in best %}
<tr><td class="num soft">{{ loop.index }}</td>
<td class="wrap"><a href="{{ pair.structure }}">{{ pair.name }}</a>
{% if pair.title and pair.title != pair.name %}<br><span class="soft">{{ pair.title }}</span>{% endif %}</td>
<td class="short">{{ pair.chain_a }}&ndash;{{ pair.chain_b }}{% if pair.accession_a or pair.accession_b %}<br>
<span class="soft">{{ pair.accession_a or "?" }}&ndash;{{ pair.accession_b or "?" }}</span>{% endif %}</td>
{% for value in (pair.ipsae_ab, pair.ipsae_ba) %}
<td class="num left"><span class="bar"><i style="width: {{ (100 * (value or 0)) | round(1) }}%"></i>
</span>{{ value | number(3) }}</td>
{% endfor %}
<td class="num">{{ pair.iptm_ab | number(3) }}</td><td class="num">{{ pair.iptm_ba | number(3) }}</td>
<td class="num">{{ pair.pae_min | number(1) }}</td><td class="num">{{ pair.contacts | number(0) }}</td></tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>None: no complex of two or more chains has a result.</p>
{% endif %}

{% if num_failures %}
<h2>Without a result</h2>
<p>{% for reason in reasons if reason.size > 1 %}{{ reason.size }} &times; {{ reason.reason }}
{{- "; " if not loop.last }}
{% endfor %}{% if num_failures > failures | length %} The first {{ failures | length }} of {{ num_failures }};
all are in <a href="tables/complexes">tables/complexes</a>.{% endif %}</p>
<div class="scroll"><table>
<thead><tr><th>Complex</th><th>Outcome</th><th>Reason</th><th class="num">Tokens</th></tr></thead>
<tbody>
{% for row in failures %}
<tr><td class="wrap">{{ row.name }}
{% if row.title and row.title != row.name %}<br><span class="soft">{{ row.title }}</span>{% endif %}</td>
<td>{{ row.outcome }}</td><td class="wrap">{{ row.reason }}</td>
<td class="num">{{ row.num_tokens | number(0) }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

{% if assumptions %}
<h2>Assumptions</h2>
<p>What was assumed where the input does not say; the column notes of <a href="tables/complexes">tables/complexes</a>
has all.</p>
<div class="scroll"><table>
<thead><tr><th>Subject</th><th class="num">Complexes</th><th>For example</th></tr></thead>
<tbody>
{% for row in assumptions %}
<tr><td class="short">{{ row.subject }}</td><td class="num">{{ row.count }}</td>
<td class="wrap">{% for name, text in row.examples %}{{ name }}: {{ text }}{% if not loop.last %}<br>{% endif %}
{% endfor %}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

<h2>Where the time went</h2>
<p>{{ num_attempts }} attempts, {{ num_retries }} of them without a result.</p>
{% set total = stages.values() | sum %}
{% if total %}
<div class="stages">{% for name, seconds in stages.items() %}<i class="s{{ loop.index0 }}" title="{{ name }}"
style="width: {{ (100 * seconds / total) | round(2) }}%"></i>{% endfor %}</div>
<div class="legend">{% for name, seconds in stages.items() %}<span><i class="s{{ loop.index0 }}"></i>{{ name }}
<span class="soft">{{ seconds | duration }}, {{ (100 * seconds / total) | number(0) }}%</span></span>{% endfor %}</div>
{% endif %}
{% if slowest %}
<div class="scroll"><table>
<thead><tr><th>Slowest</th><th class="num">Tokens</th><th class="num">Group</th><th>Precision</th>
<th class="num">Time</th><th class="num">Expected</th><th class="num">Peak memory</th>
<th class="num">Expected</th></tr></thead>
<tbody>
{% for row in slowest %}
<tr><td class="wrap">{{ row.name }}</td><td class="num">{{ row.num_tokens | number(0) }}</td>
<td class="num">{{ row.group_size | number(0) }}</td><td>{{ row.precision or "-" }}</td>
<td class="num">{{ row.seconds | duration }}</td><td class="num">{{ row.predicted_seconds | duration }}</td>
<td class="num">{{ row.peak_bytes | size }}</td><td class="num">{{ row.predicted_bytes | size }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

<h2>Invocations</h2>
<p>Running the same command again resumes where the last one stopped.</p>
<div class="scroll"><table>
<thead><tr><th>Started</th><th>Time</th><th>Status</th><th class="num">Done</th><th class="num">Failed</th>
<th class="num">Cannot be built</th><th>Command</th></tr></thead>
<tbody>
{% for row in runs %}
{% set seconds = (row.ended - row.started).total_seconds() if row.ended else none %}
<tr><td class="num left">{{ row.started | when }}</td>
<td class="num left">{{ seconds | duration }}</td>
<td>{{ row.status }}</td><td class="num">{{ row.num_done | number(0) }}</td>
<td class="num">{{ row.num_failed | number(0) }}</td><td class="num">{{ row.num_invalid | number(0) }}</td>
<td class="wrap"><code>{{ row.command }}</code></td></tr>
{% endfor %}
</tbody></table></div>

<h2>What was run</h2>
<div class="scroll"><dl>
<dt>Input</dt><dd>{{ run.input }}</dd>
<dt>Weights</dt><dd>{{ run.checkpoint }} <span class="soft">{{ run.checkpoint_sha256 or "" }}</span></dd>
{% if run.hardware %}<dt>Hardware</dt><dd>{{ run.hardware }}</dd>{% endif %}
<dt>Versions</dt><dd>{% for name, version in run.versions.items() %}{{ name }} {{ version }}{{ ", " if not loop.last }}
{% endfor %}</dd>
<dt>Files</dt><dd><a href="run.json">run.json</a>, <a href="tables">tables</a>, <a href="structures">structures</a></dd>
</dl></div>
<details><summary>Settings</summary><pre>{{ settings }}</pre></details>
</main>
</body>
</html>
"""
