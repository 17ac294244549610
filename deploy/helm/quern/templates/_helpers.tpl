{{- /* The name of the release's objects, short enough for what follows it. */}}
{{- define "quern.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $full | trunc 45 | trimSuffix "-" }}
{{- end }}

{{- /* Labels that pods are selected by: (list $ COMPONENT). */}}
{{- define "quern.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Name, namespace and labels of an object: (list $ COMPONENT NAME). */}}
{{- define "quern.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
  {{- include "quern.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end }}

{{- /* Names that have defaults: (list $ COMPONENT). */}}
{{- define "quern.serviceAccount" -}}
{{- $account := (index (index . 0).Values (index . 1)).serviceAccount }}
{{- $account.name | default ($account.create | ternary (printf "%s-%s" (include "quern.fullname" (index . 0)) (index . 1)) "default") }}
{{- end }}
{{- define "quern.tls.secret" -}}
{{- .Values.tls.callers.secretName | default (printf "%s-tls" (include "quern.fullname" .)) }}
{{- end }}
{{- define "quern.tls.edgeSecret" -}}
{{- .Values.tls.engine.edgeSecretName | default (printf "%s-edge-tls" (include "quern.fullname" .)) }}
{{- end }}
{{- define "quern.tls.engineSecret" -}}
{{- .Values.tls.engine.engineSecretName | default (printf "%s-engine-tls" (include "quern.fullname" .)) }}
{{- end }}
{{- define "quern.tls.edgeName" -}}
{{- .Values.tls.engine.edgeName | default (printf "%s-edge.%s.svc" (include "quern.fullname" .) .Release.Namespace) }}
{{- end }}
{{- define "quern.tls.engineName" -}}
{{- .Values.tls.engine.engineName | default (include "quern.engineHost" .) }}
{{- end }}
{{- define "quern.engineHost" -}}
{{- printf "%s-engine.%s.svc" (include "quern.fullname" .) .Release.Namespace }}
{{- end }}

{{- /* Whether edges share a cache: empty for no. */}}
{{- define "quern.sharedCache" -}}
{{- .Values.sharedCache.existingSecret | default .Values.sharedCache.url }}
{{- end }}

{{- /* What is the same in a Deployment's spec, but for its pods: (list $ COMPONENT). A new pod is ready before an old one stops. */}}
{{- define "quern.deployment" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
{{- if not $values.autoscaling.enabled -}}
replicas: {{ $values.replicas }}
{{ end -}}
minReadySeconds: 5
strategy:
  type: RollingUpdate
  rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
selector:
  matchLabels:
    {{- include "quern.selector" . | nindent 4 }}
{{- end }}

{{- /* Metadata of a component's pods: (list $ COMPONENT). */}}
{{- define "quern.podMetadata" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
labels:
  {{- include "quern.selector" . | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What is the same in the pods of edges, engines and tests: (list $ COMPONENT). No pod calls Kubernetes. Links to services would be
variables such as QUERN_PORT. */}}
{{- define "quern.pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "quern.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with index $root.Values (index . 1) }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* How a component's pods are spread, and how long they may take to stop: (list $ COMPONENT). */}}
{{- define "quern.replicated" -}}
{{- $selector := include "quern.selector" . }}
{{- with index (index . 0).Values (index . 1) -}}
terminationGracePeriodSeconds: {{ add .drainDelaySeconds .gracePeriodSeconds 5 }}
{{- with .topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ .topologyKey }}
    maxSkew: {{ .maxSkew | default 1 }}
    whenUnsatisfiable: {{ .whenUnsatisfiable | default "ScheduleAnyway" }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Image and confinement of a container: (list $ COMPONENT). */}}
{{- define "quern.container" -}}
{{- $image := (index (index . 0).Values (index . 1)).image -}}
{{- if $image.digest -}}
image: {{ printf "%s@%s" $image.repository $image.digest }}
{{- else -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default (index . 0).Chart.AppVersion) }}
{{- end }}
imagePullPolicy: {{ $image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}
