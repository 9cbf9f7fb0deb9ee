{{- define "meshfed.labels" -}}
app.kubernetes.io/name: meshfed
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: meshfed
{{- end }}

{{- define "meshfed.selector" -}}
app.kubernetes.io/name: meshfed
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "meshfed.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{- /* meshfed.yaml: what the chart knows, and over it what the values say. */ -}}
{{- define "meshfed.settings" -}}
{{- $home := "/var/lib/meshfed" }}
{{- $known := dict
      "certificates" (dict "key_file" (printf "%s/meshfed.key" $home))
      "health" (dict "listen" "0.0.0.0:15090")
      "injection" (dict
        "control_plane" (printf "%s.%s.svc:15130" .Release.Name .Release.Namespace)
        "init_image" (include "meshfed.image" .)) }}
{{- if .Values.injector.enabled }}
{{- $_ := set $known "xds" (dict "tokens" "0.0.0.0:15130") }}
{{- $_ := set $known.injection "listen" "0.0.0.0:9443" }}
{{- $_ := set $known.injection "webhook" .Release.Name }}
{{- end }}
{{- if not .Values.catalog.existingSecret }}
{{- $_ := set $known "catalog" (printf "sqlite:///%s/meshfed.db" $home) }}
{{- end }}
{{- if .Values.machines.enabled }}
{{- $_ := set $known "join" (dict "listen" "0.0.0.0:15129") }}
{{- end }}
{{- mergeOverwrite $known (deepCopy .Values.settings) | toYaml }}
{{- end }}

{{- /* The number of a port that settings may move: `host:port` behind a key. */ -}}
{{- define "meshfed.port" -}}
{{- . | splitList ":" | last }}
{{- end }}

{{- /* What only a start reads; the rest is heeded while it runs. */ -}}
{{- define "meshfed.started" -}}
{{- $settings := include "meshfed.settings" . | fromYaml }}
{{- $_ := unset $settings "federation" }}
{{- with $settings.mesh }}{{ $_ := unset . "permissive" }}{{ end }}
{{- $settings | toJson | sha256sum }}
{{- end }}

{{- define "meshfed.checked" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.catalog.existingSecret) }}
{{- fail "replicas: more than one needs a catalog in Postgres: name a Secret in catalog.existingSecret" }}
{{- end }}
{{- if .Values.injector.enabled }}
{{- $asking := list }}
{{- range .Values.settings.providers }}
{{- if eq .type "kubernetes" }}{{ $asking = append $asking .name }}{{ end }}
{{- end }}
{{- if not $asking }}
{{- fail "injector: no cluster would ask: name a provider of type kubernetes in settings.providers, or say enabled: false" }}
{{- end }}
{{- end }}
{{- range $name, $_ := .Values.files }}
{{- if eq $name "meshfed.yaml" }}
{{- fail "files: meshfed.yaml is made of settings: write it there" }}
{{- end }}
{{- end }}
{{- end }}
