{{/* At most 52 characters: Kubernetes adds 11 to a StatefulSet's name in a label. "poisonwatch" must be in it: the rules look for that in the job. */}}
{{- define "poisonwatch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains "poisonwatch" (.Release.Name | trunc 52) -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-poisonwatch" (.Release.Name | trunc 40 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "poisonwatch.selectorLabels" -}}
app.kubernetes.io/name: poisonwatch
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: receiver
{{- end -}}

{{- define "poisonwatch.labels" -}}
{{ include "poisonwatch.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "poisonwatch.image" -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{/* The configuration as the agent reads it: the values' own, `state` on the volume where they do not say, and `web`. */}}
{{- define "poisonwatch.config" -}}
{{- $state := dict "checkpoint" "/var/lib/poisonwatch/checkpoint" "journal" "/var/lib/poisonwatch/journal.jsonl" "dead_letter" "/var/lib/poisonwatch/dead.jsonl" "spool" "/var/lib/poisonwatch/spool" -}}
{{- $web := dict "listen_address" "0.0.0.0:9787" -}}
{{- if .Values.web.secret -}}
{{- $_ := set $web "config_file" "/etc/poisonwatch-web/web-config.yml" -}}
{{- end -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "state" (merge (deepCopy (default dict $config.state)) $state) -}}
{{- $_ := set $config "web" $web -}}
{{- toYaml $config -}}
{{- end -}}
